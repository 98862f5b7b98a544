//! What a module's memories have in them before its first instruction.

use std::fmt::Write as _;

use engines::engine::{Engine, Stop, TrapKind};

use crate::support::Guest;

for_every_engine! {
    data_lies_where_the_module_has_it,
    later_data_covers_earlier_data,
    a_module_may_have_data_in_a_hundred_thousand_places,
    data_outside_of_memory_is_a_trap,
    a_module_may_have_much_data,
}

/// A module with a check: a trap unless bytes are as they should be.
fn module(fields: &str, bytes: &[(u32, u8)]) -> String {
    let mut checks = String::new();
    for (address, byte) in bytes {
        let check = format!("(i32.ne (i32.load8_u (i32.const {address})) (i32.const {byte}))");
        write!(checks, "(if {check} (then (unreachable)))").unwrap();
    }
    format!(r#"(module (memory 16) {fields} (func (export "check") {checks}))"#)
}

async fn data_lies_where_the_module_has_it(engine: &dyn Engine) {
    let data = r#"(data (i32.const 7) "abc") (data (i32.const 10) "d") (data (i32.const 12) "e") (data (i32.const 13) "")
        (data (i32.const 500) "f") (data (i32.const 65535) "gh") (data (i32.const 100) "i") (data (i32.const 1048575) "j")"#;
    let bytes = [(6, 0), (7, b'a'), (9, b'c'), (10, b'd'), (11, 0), (12, b'e'), (13, 0), (499, 0), (500, b'f')];
    let more = [(65534, 0), (65535, b'g'), (65536, b'h'), (65537, 0), (100, b'i'), (1_048_575, b'j')];
    let guest = Guest::new(engine, module(data, &[&bytes[..], &more].concat()));
    for _ in 0..3 {
        guest.instantiate().await.unwrap().run("check").await.unwrap();
    }
}

async fn later_data_covers_earlier_data(engine: &dyn Engine) {
    let data = r#"(data (i32.const 8) "aaaa") (data (i32.const 9) "b") (data (i32.const 10) "\00") (data (i32.const 6) "ccc")"#;
    let bytes = [(5, 0), (6, b'c'), (7, b'c'), (8, b'c'), (9, b'b'), (10, 0), (11, b'a'), (12, 0)];
    Guest::new(engine, module(data, &bytes)).instantiate().await.unwrap().run("check").await.unwrap();
}

/// As many as a module may have; Go's linker makes them.
async fn a_module_may_have_data_in_a_hundred_thousand_places(engine: &dyn Engine) {
    let mut data = String::new();
    for place in 0..100_000_u32 {
        write!(data, "(data (i32.const {}) \"{:02}\")", place * 10, place % 100).unwrap();
    }
    let bytes =
        [(0, b'0'), (2, 0), (10, b'0'), (11, b'1'), (999_989, 0), (999_990, b'9'), (999_991, b'9'), (999_992, 0)];
    Guest::new(engine, module(&data, &bytes)).instantiate().await.unwrap().run("check").await.unwrap();
}

async fn data_outside_of_memory_is_a_trap(engine: &dyn Engine) {
    for data in [
        r#"(data (i32.const 1048576) "a")"#,
        r#"(data (i32.const 1048570) "aaa") (data (i32.const 1048574) "aaa")"#,
        r#"(data (i32.const 1048576) "") (data (i32.const 1048577) "")"#,
        r#"(data (i32.const -1) "a") (data (i32.const 0) "a")"#,
    ] {
        let ended = Guest::new(engine, module(data, &[])).instantiate().await.map(drop);
        assert!(
            matches!(&ended, Err(Stop::Trap(trap)) if trap.kind == TrapKind::MemoryOutOfBounds),
            "{data}: {ended:?}"
        );
    }
}

/// So much that an engine may map it rather than copy it.
async fn a_module_may_have_much_data(engine: &dyn Engine) {
    let check = r#"(func (export "check")
        (if (i32.ne (i32.load8_u (i32.const 500000)) (i32.const 0x61)) (then (unreachable)))
        (i32.store8 (i32.const 500000) (i32.const 0)))"#;
    let data = "a".repeat(1_000_000);
    let guest = Guest::new(engine, format!("(module (memory 16) (data (i32.const 0) \"{data}\") {check})"));
    for _ in 0..3 {
        let mut instance = guest.instantiate().await.unwrap();
        instance.run("check").await.unwrap();
        assert!(matches!(instance.run("check").await, Err(Stop::Trap(_))), "the guest's own memory has changed");
    }
}
