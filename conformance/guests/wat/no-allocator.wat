;; Asks for an answer that it has no allocator for.
(module
  (import "dapr:state/state-interface" "get" (func $get (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "state")
  (data (i32.const 24) "key")
  (func (export "_start")
    (call $get
      (i32.const 16) (i32.const 5)
      (i32.const 24) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0)
      (i32.const 0)
      (i32.const 64))))
