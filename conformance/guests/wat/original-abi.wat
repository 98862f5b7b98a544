;; An HTTP guest as TinyGo builds it for the original ABI: `_start` ends in proc_exit(0) and the guest is called
;; afterwards all the same; the allocator is exported three times over; there is no `_initialize`.
;; Answers every request with 200, one header and the request's body or, without one, a fixed body.
(module
  (type $realloc (func (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 2)

  (data (i32.const 16) "original abi")
  (data (i32.const 32) "x-abi")
  (data (i32.const 40) "original")
  ;; headers: one tuple<string, string>
  (data (i32.const 64) "\20\00\00\00" "\05\00\00\00" "\28\00\00\00" "\08\00\00\00")

  ;; Set by `_start`, as a Go runtime sets up its heap: a host that forgets to run it gets a trap.
  (global $started (mut i32) (i32.const 0))
  (global $heap (mut i32) (i32.const 1024))
  (global $response i32 (i32.const 128))

  (func (export "_start")
    (global.set $started (i32.const 1))
    (call $proc_exit (i32.const 0))
    unreachable)

  ;; Never frees. Aligned to 16, as TinyGo's blocks are; grows memory where it must.
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

  (func $free (export "free") (param i32))

  (func (export "cabi_realloc") (type $realloc)
    (local $block i32)
    (local.set $block (call $malloc (local.get 3)))
    (memory.copy (local.get $block) (local.get 0) (local.get 1))
    (local.get $block))

  (func (export "dapr:http/http-handler#handle-http-request")
    (param $method i32)
    (param $uri i32) (param $uri-len i32)
    (param $headers i32) (param $headers-len i32)
    (param $params i32) (param $params-len i32)
    (param $has-body i32) (param $body i32) (param $body-len i32)
    (result i32)
    (if (i32.eqz (global.get $started)) (then unreachable))
    (if (i32.eqz (local.get $has-body))
      (then
        (local.set $body (i32.const 16))
        (local.set $body-len (i32.const 12))))
    ;; status
    (i32.store16 (global.get $response) (i32.const 200))
    ;; headers: some, one
    (i32.store8 offset=4 (global.get $response) (i32.const 1))
    (i32.store offset=8 (global.get $response) (i32.const 64))
    (i32.store offset=12 (global.get $response) (i32.const 1))
    ;; body: some
    (i32.store8 offset=16 (global.get $response) (i32.const 1))
    (i32.store offset=20 (global.get $response) (local.get $body))
    (i32.store offset=24 (global.get $response) (local.get $body-len))
    (global.get $response))

  (func (export "cabi_post_dapr:http/http-handler#handle-http-request") (param $response i32)
    (call $free (local.get $response))))
