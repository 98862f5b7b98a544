//! One guest after the other: whatever an engine uses again, no guest finds anything of an earlier one.

use std::sync::Arc;

use engines::engine::{Engine, Stop};
use tokio::task::JoinHandle;

use crate::support::Guest;

for_every_engine! {
    every_guest_finds_its_memory_as_the_module_has_it,
    every_guest_finds_its_globals_and_tables_as_the_module_has_them,
    every_guest_opens_its_first_file_under_the_same_number,
    guests_of_different_modules_and_sizes_do_not_mix,
    arguments_and_environment_are_those_of_the_guest,
    guests_at_the_same_time_do_not_mix,
}

/// How a guest may end.
const ENDINGS: [&str; 3] = ["", "unreachable", "(loop $forever (br $forever))"];

/// Runs guests one after the other, each of which ends in one of the ways; the endless ones are cancelled.
async fn one_after_the_other(guest: impl Fn(&str) -> Guest) {
    for ending in ENDINGS.iter().cycle().take(12) {
        let guest = guest(ending);
        for _ in 0..2 {
            let mut instance = guest.instantiate().await.unwrap();
            // What is not as it should be has the guest exit.
            let cancel = guest.cancel.clone();
            let running: JoinHandle<_> = tokio::spawn(async move { instance.run("_start").await });
            if ending.contains("loop") {
                tokio::task::yield_now().await;
                cancel.cancel();
            }
            let ended = running.await.unwrap();
            assert!(!matches!(ended, Err(Stop::Exit(_))), "{ending}: {ended:?}");
            assert_eq!(ended.is_ok(), ending.is_empty(), "{ended:?}");
            if cancel.is_cancelled() {
                break;
            }
        }
    }
}

/// Exits where the memory is not as large, or not as empty, as in the module; then grows it and fills all of it.
fn memory(pages: u32, ending: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
          (memory (export "memory") {pages})
          (data (i32.const 65000) "data")
          (func $check (param $is i64) (param $should i64)
            (if (i64.ne (local.get $is) (local.get $should)) (then (call $proc_exit (i32.const 1)))))
          (func (export "_start") (local $at i32)
            (call $check (i64.extend_i32_u (memory.size)) (i64.const {pages}))
            (call $check (i64.load32_u (i32.const 65000)) (i64.const 0x61746164))
            (i32.store (i32.const 65000) (i32.const 0))
            (loop $next
              (call $check (i64.load (local.get $at)) (i64.const 0))
              (local.set $at (i32.add (local.get $at) (i32.const 8)))
              (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
            (call $check (i64.extend_i32_u (memory.grow (i32.const 3))) (i64.const {pages}))
            (loop $next
              (call $check (i64.load (local.get $at)) (i64.const 0))
              (local.set $at (i32.add (local.get $at) (i32.const 8)))
              (br_if $next (i32.lt_u (local.get $at) (i32.mul (memory.size) (i32.const 65536)))))
            (memory.fill (i32.const 0) (i32.const 0xee) (local.get $at))
            {ending}))"#
    )
}

async fn every_guest_finds_its_memory_as_the_module_has_it(engine: &dyn Engine) {
    one_after_the_other(|ending| Guest::new(engine, memory(2, ending))).await;
}

async fn every_guest_finds_its_globals_and_tables_as_the_module_has_them(engine: &dyn Engine) {
    one_after_the_other(|ending| {
        let module = format!(
            r#"(module
              (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
              (memory (export "memory") 1)
              (global $ran (mut i32) (i32.const 0))
              (table $functions 4 8 funcref)
              (elem declare func $start)
              (func $start (export "_start")
                (if (i32.or (global.get $ran) (i32.ne (table.size $functions) (i32.const 4)))
                  (then (call $proc_exit (i32.const 1))))
                (if (i32.eqz (ref.is_null (table.get $functions (i32.const 0))))
                  (then (call $proc_exit (i32.const 2))))
                (global.set $ran (i32.const 1))
                (table.set $functions (i32.const 0) (ref.func $start))
                (drop (table.grow $functions (ref.func $start) (i32.const 4)))
                {ending}))"#
        );
        Guest::new(engine, module)
    })
    .await;
}

async fn every_guest_opens_its_first_file_under_the_same_number(engine: &dyn Engine) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "content").unwrap();
    one_after_the_other(|ending| {
        let start = format!(
            r#"(data (i32.const 4096) "file")
               (func (export "_start")
                 (call $ok (call $open (call $root) (i32.const 4096) (i32.const 4) (i32.const 0) (i64.const 2)))
                 (call $ok (i32.ne (call $opened) (i32.add (call $root) (i32.const 1))))
                 {ending})"#
        );
        Guest::with_wasi(engine, start).preopen(folder.path(), "/")
    })
    .await;
}

async fn guests_of_different_modules_and_sizes_do_not_mix(engine: &dyn Engine) {
    let guests: Vec<Guest> = [1, 7, 2, 40].map(|pages| Guest::new(engine, memory(pages, ""))).into();
    for _ in 0..3 {
        for guest in &guests {
            guest.instantiate().await.unwrap().run("_start").await.unwrap();
        }
    }
}

/// Prints its first argument and its first variable.
const PRINT: &str = r#"
    (func (export "_start")
      (call $ok (call $args_get (i32.const 4096) (i32.const 8192)))
      (call $print (i32.const 8192) (i32.const 3))
      (call $ok (call $environ_get (i32.const 4096) (i32.const 8192)))
      (call $print (i32.const 8192) (i32.const 5)))"#;

async fn arguments_and_environment_are_those_of_the_guest(engine: &dyn Engine) {
    for (argument, value) in [("one", "123"), ("two", "456"), ("one", "789")] {
        let guest = Guest::with_wasi(engine, PRINT).args(&[argument]).env(&[("N", value)]);
        let ended = guest.run().await;
        ended.result.unwrap();
        assert_eq!(ended.stdout, format!("{argument}N={value}"));
    }
}

async fn guests_at_the_same_time_do_not_mix(engine: &dyn Engine) {
    let guest = Arc::new(Guest::new(engine, memory(3, "")));
    for _ in 0..5 {
        let guests = (0..20).map(|_| {
            let guest = Arc::clone(&guest);
            tokio::spawn(async move { guest.instantiate().await.unwrap().run("_start").await })
        });
        for guest in guests.collect::<Vec<_>>() {
            guest.await.unwrap().unwrap();
        }
    }
}
