;; An HTTP guest whose response is not what the interface says. The request's method chooses how.
(module
  (memory (export "memory") 1)
  (data (i32.const 16) "\ff\fe") ;; no UTF-8
  ;; At 64, one header: its name is no UTF-8, its value is empty.
  (data (i32.const 64) "\10\00\00\00" "\02\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (global $response i32 (i32.const 128))
  (global $heap (mut i32) (i32.const 1024))
  (global $post-return-traps (mut i32) (i32.const 0))

  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (local $block i32)
    (local.set $block (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $block) (local.get $size)))
    (local.get $block))

  (func $headers (param $case i32) (param $list i32) (param $length i32)
    (i32.store8 offset=4 (global.get $response) (local.get $case))
    (i32.store offset=8 (global.get $response) (local.get $list))
    (i32.store offset=12 (global.get $response) (local.get $length)))

  (func $body (param $case i32) (param $bytes i32) (param $length i32)
    (i32.store8 offset=16 (global.get $response) (local.get $case))
    (i32.store offset=20 (global.get $response) (local.get $bytes))
    (i32.store offset=24 (global.get $response) (local.get $length)))

  (func (export "dapr:http/http-handler#handle-http-request")
    (param $method i32)
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32)
    (result i32)
    (i32.store16 (global.get $response) (i32.const 200))
    (block $options (block $head (block $patch (block $delete (block $put (block $post (block $get
      (br_table $get $post $put $delete $patch $head $options (local.get $method)))
      (return (i32.const 65512))) ;; 28 bytes from there are 4 too many
      (return (i32.const 130)))
      (call $headers (i32.const 2) (i32.const 0) (i32.const 0))
      (return (global.get $response)))
      (call $headers (i32.const 1) (i32.const 64) (i32.const -1))
      (return (global.get $response)))
      (call $headers (i32.const 1) (i32.const 64) (i32.const 1))
      (return (global.get $response)))
      (call $body (i32.const 1) (i32.const 1024) (i32.const 0x7fffffff))
      (return (global.get $response)))
    (global.set $post-return-traps (i32.const 1))
    (global.get $response))

  (func (export "cabi_post_dapr:http/http-handler#handle-http-request") (param i32)
    (if (global.get $post-return-traps) (then unreachable))))
