;; An HTTP guest that does what a handler should not. The second byte of the path says what:
;;   /memory  answers `fresh` where its memory is as the module has it, else `used`, and then fills it
;;   /trap    traps
;;   /exit    ends with code 3
;;   /loop    prints `!` and never returns
;;   /status  answers with a status that there is not
;;   /header  answers with a header whose name has a line break in it
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 3)
  (data (i32.const 16) "fresh")
  (data (i32.const 24) "used")
  (data (i32.const 32) "!")
  (data (i32.const 40) "\20\00\00\00" "\01\00\00\00") ;; the list of what is printed
  (data (i32.const 64) "x\ny")
  (data (i32.const 72) "\40\00\00\00" "\03\00\00\00" "\20\00\00\00" "\01\00\00\00") ;; one header
  (global $response i32 (i32.const 128))
  (global $heap (mut i32) (i32.const 1024))
  (global $calls (mut i32) (i32.const 0))

  ;; Within the first page: a request must fit there.
  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $block i32)
    (local.set $block (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $block) (local.get $size)))
    (local.get $block))

  ;; The second and the third page are zero, and there are no more; no call was before this one.
  (func $is-fresh (result i32)
    (local $at i32)
    (if (global.get $calls) (then (return (i32.const 0))))
    (if (i32.ne (memory.size) (i32.const 3)) (then (return (i32.const 0))))
    (local.set $at (i32.const 65536))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 196608))))
    (i32.const 1))

  (func $use-up
    (global.set $calls (i32.const 1))
    (memory.fill (i32.const 65536) (i32.const 0xff) (i32.const 131072))
    (drop (memory.grow (i32.const 1))))

  (func $body (param $text i32) (param $length i32)
    (i32.store8 offset=16 (global.get $response) (i32.const 1))
    (i32.store offset=20 (global.get $response) (local.get $text))
    (i32.store offset=24 (global.get $response) (local.get $length)))

  (func (export "dapr:http/http-handler#handle-http-request")
    (param $method i32)
    (param $uri i32) (param $uri-len i32)
    (param $headers i32) (param $headers-len i32)
    (param $params i32) (param $params-len i32)
    (param $has-body i32) (param $body i32) (param $body-len i32)
    (result i32)
    (local $word i32)
    (local.set $word (i32.load8_u offset=1 (local.get $uri)))
    (i32.store16 (global.get $response) (i32.const 200))
    (if (i32.eq (local.get $word) (i32.const 0x6d)) ;; m
      (then
        (if (call $is-fresh)
          (then (call $body (i32.const 16) (i32.const 5)))
          (else (call $body (i32.const 24) (i32.const 4))))
        (call $use-up)))
    (if (i32.eq (local.get $word) (i32.const 0x65)) ;; e
      (then (call $proc_exit (i32.const 3))))
    (if (i32.eq (local.get $word) (i32.const 0x74)) ;; t
      (then (unreachable)))
    (if (i32.eq (local.get $word) (i32.const 0x6c)) ;; l
      (then
        (drop (call $fd_write (i32.const 1) (i32.const 40) (i32.const 1) (i32.const 48)))
        (loop $again (br $again))))
    (if (i32.eq (local.get $word) (i32.const 0x73)) ;; s
      (then (i32.store16 (global.get $response) (i32.const 99))))
    (if (i32.eq (local.get $word) (i32.const 0x68)) ;; h
      (then
        (i32.store8 offset=4 (global.get $response) (i32.const 1))
        (i32.store offset=8 (global.get $response) (i32.const 72))
        (i32.store offset=12 (global.get $response) (i32.const 1))))
    (global.get $response)))
