;; A command for the original ABI, as TinyGo builds one: sets `z` to `value` in the store `state`, gets it and
;; prints it. Ends with code 1 when either call answers an error, which it prints to standard error.
(module
  (type $realloc (func (param i32 i32 i32 i32) (result i32)))
  (import "dapr:state/state-interface" "get"
    (func $get (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "dapr:state/state-interface" "set" (func $set (param i32 i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  (data (i32.const 16) "state")
  (data (i32.const 24) "z")
  (data (i32.const 32) "value")
  ;; The parameters of `set`, 64 bytes at 64: sixteen flat ones are the limit, and these are seventeen.
  (data (i32.const 64)
    "\10\00\00\00" "\05\00\00\00"                ;; name
    "\18\00\00\00" "\01\00\00\00"                ;; key
    "\20\00\00\00" "\05\00\00\00"                ;; value
    "\00\00\00\00" "\00\00\00\00" "\00\00\00\00" ;; etag: none
    "\00\00\00\00" "\00\00\00\00" "\00\00\00\00" ;; metadata: none
    "\00\00\00\00"                               ;; concurrency, consistency: unspecified
    "\00\00\00\00" "\00\00\00\00" "\00\00\00\00") ;; content-type: none

  (global $heap (mut i32) (i32.const 1024))
  (global $set-result i32 (i32.const 128)) ;; 12 bytes
  (global $get-result i32 (i32.const 144)) ;; 48 bytes
  (global $iovec i32 (i32.const 192))      ;; 8 bytes
  (global $written i32 (i32.const 200))

  (func $malloc (export "malloc") (param $size i32) (result i32)
    (local $block i32)
    (local.set $block (global.get $heap))
    (global.set $heap
      (i32.and
        (i32.add (i32.add (local.get $block) (local.get $size)) (i32.const 15))
        (i32.const -16)))
    (block $fits
      (br_if $fits (i32.le_u (global.get $heap) (i32.shl (memory.size) (i32.const 16))))
      (br_if $fits (i32.ne (i32.const -1)
        (memory.grow (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1)))))
      unreachable)
    (local.get $block))

  (func (export "free") (param i32))

  (func (export "cabi_realloc") (type $realloc)
    (local $block i32)
    (local.set $block (call $malloc (local.get 3)))
    (memory.copy (local.get $block) (local.get 0) (local.get 1))
    (local.get $block))

  (func $print (param $descriptor i32) (param $text i32) (param $len i32)
    (i32.store (global.get $iovec) (local.get $text))
    (i32.store offset=4 (global.get $iovec) (local.get $len))
    (drop
      (call $fd_write (local.get $descriptor) (global.get $iovec) (i32.const 1) (global.get $written))))

  ;; A result whose error is a string, and whose payload begins at 4: prints the error and ends.
  (func $check (param $result i32)
    (if (i32.load8_u (local.get $result))
      (then
        (call $print
          (i32.const 2)
          (i32.load offset=4 (local.get $result))
          (i32.load offset=8 (local.get $result)))
        (call $proc_exit (i32.const 1)))))

  (func (export "_start")
    (call $set (i32.const 64) (global.get $set-result))
    (call $check (global.get $set-result))
    (call $get
      (i32.const 16) (i32.const 5)                ;; name
      (i32.const 24) (i32.const 1)                ;; key
      (i32.const 0) (i32.const 0) (i32.const 0)   ;; metadata: none
      (i32.const 0)                               ;; consistency: unspecified
      (global.get $get-result))
    (call $check (global.get $get-result))
    (call $print
      (i32.const 1)
      (i32.load offset=4 (global.get $get-result))
      (i32.load offset=8 (global.get $get-result)))
    (call $proc_exit (i32.const 0))))
