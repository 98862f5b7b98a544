//! Many instances of one module. What one leaves behind, such as its memory, an engine may use again for the next.

use std::sync::Arc;

use bytes::Bytes;
use engines::engine::{Engine, Stop};
use host_abi::state::GetResponse;
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::support::{GetStore, Guest, PRELUDE};

for_every_engine! {
    many_are_alive_at_once,
    many_can_call_their_host_at_once,
    memory_tables_and_globals_are_fresh_however_many_came_before,
    others_come_after_a_trap,
    a_module_may_have_several_memories_and_tables,
}

const AT_ONCE: u32 = 50;

/// `check` traps unless everything is as the module has it, and then makes everything different.
const USED_UP: &str = r#"(module
  (type $nothing (func))
  (memory (export "memory") 3 100)
  (data (i32.const 65530) "across pages")
  (table 1000 funcref)
  (elem (i32.const 10) $check)
  (global $calls (mut i32) (i32.const 7))
  (func $expect (param i32) (if (i32.eqz (local.get 0)) (then (unreachable))))
  (func $check (export "check") (local $at i32)
    (call $expect (i32.eq (global.get $calls) (i32.const 7)))
    (call $expect (i32.eq (memory.size) (i32.const 3)))
    (call $expect (i32.eq (table.size) (i32.const 1000)))
    (call $expect (i32.eq (i32.load8_u (i32.const 65530)) (i32.const 0x61)))
    (call $expect (i32.eq (i32.load8_u (i32.const 65541)) (i32.const 0x73)))
    (local.set $at (i32.const 65544))
    (loop $next
      (call $expect (i64.eqz (i64.load (local.get $at))))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 196608))))
    (call $expect (ref.is_null (table.get (i32.const 9))))
    (call $expect (i32.eqz (ref.is_null (table.get (i32.const 10)))))
    (global.set $calls (i32.const 8))
    (table.fill (i32.const 0) (ref.null func) (i32.const 1000))
    (table.set (i32.const 9) (ref.func $check))
    (drop (memory.grow (i32.const 20)))
    (memory.fill (i32.const 0) (i32.const 0xff) (i32.const 1507328))))"#;

async fn many_are_alive_at_once(engine: &dyn Engine) {
    let guest = Guest::new(engine, USED_UP);
    let mut instances = Vec::new();
    for _ in 0..AT_ONCE {
        instances.push(guest.instantiate().await.unwrap());
    }
    for instance in &mut instances {
        instance.run("check").await.unwrap();
    }
}

/// Their allocators run once all of them have waited for their host.
async fn many_can_call_their_host_at_once(engine: &dyn Engine) {
    let all_wait = Arc::new(Barrier::new(AT_ONCE as usize));
    let answer = move |_| {
        let all_wait = Arc::clone(&all_wait);
        async move {
            all_wait.wait().await;
            GetResponse { data: Bytes::from_static(b"value"), ..GetResponse::default() }
        }
    };
    let start = r#"
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
          (call $allocate (local.get 2) (local.get 3)))
        (func (export "_start") (call $get_key) (call $ok (i32.load8_u (i32.const 2048))))"#;
    let guest = Guest::new(engine, format!("(module {PRELUDE} {start})"));
    let guest = Arc::new(guest.store("state", GetStore(answer)));
    let guests: Vec<JoinHandle<Result<(), Stop>>> = (0..AT_ONCE)
        .map(|_| {
            let guest = Arc::clone(&guest);
            tokio::spawn(async move { guest.instantiate().await?.run("_start").await })
        })
        .collect();
    for guest in guests {
        guest.await.unwrap().unwrap();
    }
}

async fn memory_tables_and_globals_are_fresh_however_many_came_before(engine: &dyn Engine) {
    let guest = Guest::new(engine, USED_UP);
    for _ in 0..20 {
        let mut instance = guest.instantiate().await.unwrap();
        instance.run("check").await.unwrap();
        assert!(matches!(instance.run("check").await, Err(Stop::Trap(_))), "it is not fresh any more");
    }
}

async fn others_come_after_a_trap(engine: &dyn Engine) {
    let guest = Guest::new(engine, r#"(module (memory 1) (func (export "trap") unreachable))"#);
    for _ in 0..100 {
        assert!(matches!(guest.instantiate().await.unwrap().run("trap").await, Err(Stop::Trap(_))));
    }
}

async fn a_module_may_have_several_memories_and_tables(engine: &dyn Engine) {
    let modules = [
        r#"(memory 1) (memory 1) (func (export "run") (i32.store 1 (i32.const 0) (i32.const 1)))"#,
        r#"(table 1 funcref) (table 1 funcref) (func (export "run"))"#,
    ];
    for module in modules {
        let guest = Guest::new(engine, format!("(module {module})"));
        for _ in 0..3 {
            guest.instantiate().await.unwrap().run("run").await.unwrap();
        }
    }
}
