;; Prints `!`, so that it can be seen to run, and never ends.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "!")
  (data (i32.const 24) "\10\00\00\00" "\01\00\00\00")

  (func $print (drop (call $fd_write (i32.const 1) (i32.const 24) (i32.const 1) (i32.const 32))))
  (func (export "_start") (call $print) (loop $again (br $again)))
  ;; Prints without end: one that is always inside its host, or on the way there.
  (func (export "print") (loop $again (call $print) (br $again))))
