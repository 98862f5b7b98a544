;; A way into each kind of trap, an export each, and ways that lead back out.
(module
  (memory (export "memory") 1)
  (type $nothing (func))
  (type $number (func (param i32)))
  ;; null, then a function
  (table 2 funcref)
  (elem (i32.const 1) $return)

  ;; Not constants: a compiler must not see the trap coming.
  (global $zero (mut i32) (i32.const 0))
  (global $minus-one (mut i32) (i32.const -1))
  (global $minus-one-wide (mut i64) (i64.const -1))
  (global $huge (mut f64) (f64.const 1e300))
  (global $nan (mut f32) (f32.const nan))

  (func $return (export "return"))
  (func (export "unreachable") unreachable)
  (func $recurse (export "recursion") (call $recurse) (call $return))

  (func (export "load-past-the-end") (drop (i32.load (i32.const 65533))))
  (func (export "load-at-the-end") (drop (i32.load (i32.const 65532))))
  (func (export "store-past-the-end") (i64.store (i32.const 65529) (i64.const 1)))
  (func (export "load-with-an-offset-that-wraps") (drop (i32.load8_u offset=0xffffffff (global.get $minus-one))))
  (func (export "copy-past-the-end") (memory.copy (i32.const 1) (i32.const 0) (i32.const 65536)))
  (func (export "fill-past-the-end") (memory.fill (i32.const 1) (i32.const 0) (i32.const 65536)))
  (func (export "load-from-memory-that-grew")
    (drop (memory.grow (i32.const 1)))
    (drop (i32.load (i32.const 131068))))

  (func (export "call-past-the-table") (call_indirect (type $nothing) (i32.const 2)))
  (func (export "read-past-the-table") (drop (table.get (i32.const 2))))
  (func (export "call-of-null") (call_indirect (type $nothing) (global.get $zero)))
  (func (export "call-with-another-type") (call_indirect (type $number) (i32.const 0) (i32.const 1)))
  (func (export "call-through-the-table") (call_indirect (type $nothing) (i32.const 1)))

  (func (export "divide-by-zero") (drop (i32.div_u (i32.const 1) (global.get $zero))))
  (func (export "remainder-by-zero") (drop (i64.rem_s (i64.const 1) (i64.extend_i32_u (global.get $zero)))))
  (func (export "divide-the-smallest-by-minus-one")
    (drop (i32.div_s (i32.const 0x80000000) (global.get $minus-one))))
  (func (export "divide-the-smallest-wide-by-minus-one")
    (drop (i64.div_s (i64.const 0x8000000000000000) (global.get $minus-one-wide))))
  ;; 0, without a trap
  (func (export "remainder-of-the-smallest-by-minus-one")
    (drop (i32.rem_s (i32.const 0x80000000) (global.get $minus-one))))
  (func (export "convert-a-huge-number") (drop (i32.trunc_f64_s (global.get $huge))))
  (func (export "convert-no-number") (drop (i64.trunc_f32_u (global.get $nan))))
  (func (export "convert-no-number-and-saturate") (drop (i64.trunc_sat_f32_u (global.get $nan))))

  (func $innermost unreachable)
  (func $middle (call $innermost))
  (func (export "three-deep") (call $middle))

  (func (export "wants-a-number") (param i32)))
