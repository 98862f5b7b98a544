;; Passes its host what no program may, an export each. Those named `allocator-` ask for something that is there,
;; so that the host calls the allocator, which then misbehaves.
(module
  (import "dapr:state/state-interface" "get"
    (func $get (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "dapr:state/state-interface" "set" (func $set (param i32 i32)))
  (import "dapr:state/state-interface" "delete"
    (func $delete (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "dapr:http/http-client" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)

  (data (i32.const 16) "state")
  (data (i32.const 24) "key")
  (data (i32.const 32) "\ff\fe") ;; no UTF-8
  ;; At 64, metadata: two pairs whose parts are all the same 28 KiB, which is more than the memory together.
  (data (i32.const 64)
    "\00\10\00\00" "\00\70\00\00" "\00\10\00\00" "\00\70\00\00"
    "\00\10\00\00" "\00\70\00\00" "\00\10\00\00" "\00\70\00\00")
  ;; At 128, the parameters of `set`: store, key, an empty value, and nothing else.
  (data (i32.const 128) "\10\00\00\00" "\05\00\00\00" "\18\00\00\00" "\03\00\00\00")
  (global $parameters i32 (i32.const 128))
  (global $result i32 (i32.const 256))

  ;; How the allocator misbehaves.
  (global $allocator (mut i32) (i32.const 0))
  (global $well-behaved i32 (i32.const 0))
  (global $outside-memory i32 (i32.const 1))
  (global $misaligned i32 (i32.const 2))
  (global $traps i32 (i32.const 3))
  (global $calls-its-host i32 (i32.const 4))
  (global $loops i32 (i32.const 5))
  (global $heap (mut i32) (i32.const 1024))

  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $block i32)
    (local.set $block (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $block) (local.get $size)))
    (if (i32.eq (global.get $allocator) (global.get $outside-memory))
      (then (return (i32.const 0xfffffff0))))
    (if (i32.eq (global.get $allocator) (global.get $misaligned))
      (then (return (i32.add (local.get $block) (i32.const 1)))))
    (if (i32.eq (global.get $allocator) (global.get $traps))
      (then unreachable))
    (if (i32.eq (global.get $allocator) (global.get $calls-its-host))
      (then (call $get-key)))
    (if (i32.eq (global.get $allocator) (global.get $loops))
      (then (loop $again (br $again))))
    (local.get $block))

  ;; What is wrong with one argument, the others being right.
  (func $get-of (param $name i32) (param $name-len i32) (param $key i32) (param $key-len i32)
    (call $get
      (local.get $name) (local.get $name-len)
      (local.get $key) (local.get $key-len)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0)
      (global.get $result)))
  (func $get-with (param $some i32) (param $pairs i32) (param $length i32) (param $consistency i32) (param $into i32)
    (call $get
      (i32.const 16) (i32.const 5)
      (i32.const 24) (i32.const 3)
      (local.get $some) (local.get $pairs) (local.get $length)
      (local.get $consistency)
      (local.get $into)))
  (func $get-key
    (call $get-with (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $result)))

  (func (export "well-formed") (call $get-key))

  (func (export "name-outside-memory")
    (call $get-of (i32.const -1) (i32.const 5) (i32.const 24) (i32.const 3)))
  (func (export "name-longer-than-memory")
    (call $get-of (i32.const 16) (i32.const -1) (i32.const 24) (i32.const 3)))
  (func (export "name-of-nothing-past-the-end")
    (call $get-of (i32.const 65537) (i32.const 0) (i32.const 24) (i32.const 3)))
  (func (export "key-not-utf8")
    (call $get-of (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 2)))
  (func (export "key-half-outside")
    (call $get-of (i32.const 16) (i32.const 5) (i32.const 65535) (i32.const 2)))

  (func (export "metadata-neither-some-nor-none")
    (call $get-with (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0) (global.get $result)))
  (func (export "metadata-misaligned")
    (call $get-with (i32.const 1) (i32.const 65) (i32.const 1) (i32.const 0) (global.get $result)))
  (func (export "metadata-longer-than-memory")
    (call $get-with (i32.const 1) (i32.const 64) (i32.const -1) (i32.const 0) (global.get $result)))
  (func (export "metadata-overlapping")
    (call $get-with (i32.const 1) (i32.const 64) (i32.const 2) (i32.const 0) (global.get $result)))
  (func (export "metadata-value-outside-memory")
    (i32.store (i32.const 68) (i32.const 1)) ;; of the first pair, the name is one byte
    (i32.store (i32.const 72) (i32.const -2))
    (call $get-with (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0) (global.get $result)))
  (func (export "consistency-unknown")
    (call $get-with (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 3) (global.get $result)))

  (func (export "result-misaligned")
    (call $get-with (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 258)))
  (func (export "result-half-outside")
    (call $get-with (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 65492)))

  (func (export "parameters-misaligned") (call $set (i32.const 130) (global.get $result)))
  (func (export "parameters-half-outside") (call $set (i32.const 65480) (global.get $result)))
  (func (export "value-longer-than-memory")
    (i32.store (i32.const 144) (i32.const 512))
    (i32.store (i32.const 148) (i32.const 0x80000000))
    (call $set (global.get $parameters) (global.get $result)))
  (func (export "etag-neither-some-nor-none")
    (i32.store8 (i32.const 152) (i32.const 0xff))
    (call $set (global.get $parameters) (global.get $result)))
  (func (export "concurrency-unknown")
    (i32.store8 (i32.const 176) (i32.const 3))
    (call $set (global.get $parameters) (global.get $result)))
  (func (export "content-type-outside-memory")
    (i32.store8 (i32.const 180) (i32.const 1))
    (i32.store (i32.const 184) (i32.const 65536))
    (i32.store (i32.const 188) (i32.const 1))
    (call $set (global.get $parameters) (global.get $result)))

  (func (export "etag-not-utf8")
    (call $delete
      (i32.const 16) (i32.const 5)
      (i32.const 24) (i32.const 3)
      (i32.const 1) (i32.const 32) (i32.const 2)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0)
      (global.get $result)))

  (func (export "method-unknown")
    (call $send
      (i32.const 7)
      (i32.const 24) (i32.const 3)
      (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (global.get $result)))
  (func (export "body-longer-than-memory")
    (call $send
      (i32.const 1)
      (i32.const 24) (i32.const 3)
      (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 0)
      (i32.const 1) (i32.const 24) (i32.const 0x7fffffff)
      (global.get $result)))

  (func (export "allocator-outside-memory") (global.set $allocator (global.get $outside-memory)) (call $get-key))
  (func (export "allocator-misaligned") (global.set $allocator (global.get $misaligned)) (call $get-key))
  (func (export "allocator-traps") (global.set $allocator (global.get $traps)) (call $get-key))
  (func (export "allocator-calls-its-host") (global.set $allocator (global.get $calls-its-host)) (call $get-key))
  (func (export "allocator-loops") (global.set $allocator (global.get $loops)) (call $get-key)))
