//! What a module's memory has in it before the first instruction. An engine may map much data rather than copy it.

use std::fmt::Write as _;

use engines::engine::{Engine, Stop, TrapKind};

use crate::support::Guest;

for_every_engine! {
    data_lies_where_the_module_has_it,
    later_data_covers_earlier_data,
    what_a_guest_changes_is_its_own,
    a_module_may_have_data_in_a_hundred_thousand_places,
    data_outside_of_memory_is_a_trap,
}

/// Without more data, and with much more, from 150 to 450 KB.
fn little_and_much() -> [String; 2] {
    [String::new(), format!(r#"(data (i32.const 150000) "{}")"#, "m".repeat(300_000))]
}

/// A module with a check: a trap unless bytes are as they should be.
fn module(data: &str, bytes: &[(u32, u8)]) -> String {
    let mut checks = String::new();
    for (address, byte) in bytes {
        let check = format!("(i32.ne (i32.load8_u (i32.const {address})) (i32.const {byte}))");
        write!(checks, "(if {check} (then (unreachable)))").unwrap();
    }
    format!(r#"(module (memory 16) {data} (func (export "check") {checks}))"#)
}

async fn is_as_it_should_be(engine: &dyn Engine, data: &str, bytes: &[(u32, u8)]) {
    let guest = Guest::new(engine, module(data, bytes));
    for _ in 0..3 {
        guest.instantiate().await.unwrap().run("check").await.unwrap();
    }
}

async fn data_lies_where_the_module_has_it(engine: &dyn Engine) {
    let data = r#"(data (i32.const 7) "abc") (data (i32.const 10) "d") (data (i32.const 12) "e") (data (i32.const 13) "")
        (data (i32.const 500) "f") (data (i32.const 65535) "gh") (data (i32.const 100) "i") (data (i32.const 1048575) "j")"#;
    let bytes = [(6, 0), (7, b'a'), (9, b'c'), (10, b'd'), (11, 0), (12, b'e'), (13, 0), (499, 0), (500, b'f')];
    let more = [(65534, 0), (65535, b'g'), (65536, b'h'), (65537, 0), (100, b'i'), (149_999, 0), (450_000, 0)];
    let bytes = [&bytes[..], &more, &[(1_048_574, 0), (1_048_575, b'j')]].concat();
    let [little, much] = little_and_much();
    is_as_it_should_be(engine, &format!("{data} {little}"), &[&bytes[..], &[(150_000, 0)]].concat()).await;
    let is_there = [(150_000, b'm'), (449_999, b'm')];
    is_as_it_should_be(engine, &format!("{data} {much}"), &[&bytes[..], &is_there].concat()).await;
}

async fn later_data_covers_earlier_data(engine: &dyn Engine) {
    let data = r#"(data (i32.const 8) "aaaa") (data (i32.const 9) "b") (data (i32.const 10) "\00") (data (i32.const 6) "ccc")"#;
    let bytes = [(5, 0), (6, b'c'), (7, b'c'), (8, b'c'), (9, b'b'), (10, 0), (11, b'a'), (12, 0)];
    for more in little_and_much() {
        is_as_it_should_be(engine, &format!("{data} {more}"), &bytes).await;
    }
}

/// All of its memory, and what it adds.
async fn what_a_guest_changes_is_its_own(engine: &dyn Engine) {
    for more in little_and_much() {
        let guest = Guest::new(
            engine,
            format!(
                r#"(module (memory 16) (data (i32.const 8) "a") {more}
                    (func (export "check")
                      (if (i32.ne (i32.load (i32.const 8)) (i32.const 0x61)) (then (unreachable)))
                      (if (i32.load (i32.const 1000000)) (then (unreachable)))
                      (if (i32.ne (memory.grow (i32.const 1)) (i32.const 16)) (then (unreachable)))
                      (if (i32.load (i32.const 1048576)) (then (unreachable)))
                      (memory.fill (i32.const 0) (i32.const 0xee) (i32.const 1114112))))"#
            ),
        );
        for _ in 0..3 {
            let mut instance = guest.instantiate().await.unwrap();
            instance.run("check").await.unwrap();
            assert!(matches!(instance.run("check").await, Err(Stop::Trap(_))), "the guest's own memory has changed");
        }
    }
}

/// As many as a module may have. Go's linker makes them.
async fn a_module_may_have_data_in_a_hundred_thousand_places(engine: &dyn Engine) {
    let mut data = String::new();
    for place in 0..100_000_u32 {
        write!(data, "(data (i32.const {}) \"{:02}\")", place * 10, place % 100).unwrap();
    }
    let bytes =
        [(0, b'0'), (2, 0), (10, b'0'), (11, b'1'), (999_989, 0), (999_990, b'9'), (999_991, b'9'), (999_992, 0)];
    is_as_it_should_be(engine, &data, &bytes).await;
}

async fn data_outside_of_memory_is_a_trap(engine: &dyn Engine) {
    for more in little_and_much() {
        for data in [
            r#"(data (i32.const 1048576) "a")"#,
            r#"(data (i32.const 1048570) "aaa") (data (i32.const 1048574) "aaa")"#,
            r#"(data (i32.const 1048576) "") (data (i32.const 1048577) "")"#,
            r#"(data (i32.const -1) "a") (data (i32.const 0) "a")"#,
        ] {
            let ended = Guest::new(engine, module(&format!("{more} {data}"), &[])).instantiate().await.map(drop);
            assert!(
                matches!(&ended, Err(Stop::Trap(trap)) if trap.kind == TrapKind::MemoryOutOfBounds),
                "{data}: {ended:?}"
            );
        }
    }
}
