//! What a guest may not do, and modules that no engine takes.

use engines::engine::{Engine, Stop, TrapKind};

use crate::support::Guest;

for_every_engine! {
    every_trap_has_its_kind,
    a_trap_names_the_guests_functions,
    functions_without_a_name_have_an_index,
    a_backtrace_is_short_and_does_nothing_to_a_terminal,
    a_table_has_ten_million_elements_at_most,
    recursion_that_calls_the_host_is_a_trap,
    recursion_with_large_frames_is_a_trap,
    a_trap_in_the_start_function_fails_the_instantiation,
    the_next_instance_is_none_the_worse,
    what_is_no_module_is_refused,
    a_feature_of_one_engine_only_is_refused,
    an_import_of_another_type_fails_the_load,
}

async fn every_trap_has_its_kind(engine: &dyn Engine) {
    let traps = [
        ("unreachable", TrapKind::Unreachable),
        ("(call $main)", TrapKind::StackOverflow),
        ("(drop (i32.load (i32.const 65536)))", TrapKind::MemoryOutOfBounds),
        ("(drop (i32.load offset=0xffffffff (i32.const -1)))", TrapKind::MemoryOutOfBounds),
        ("(memory.fill (i32.const 1) (i32.const 0) (i32.const 65536))", TrapKind::MemoryOutOfBounds),
        ("(drop (table.get 0 (i32.const 9)))", TrapKind::TableOutOfBounds),
        ("(call_indirect (i32.const 9))", TrapKind::TableOutOfBounds),
        ("(call_indirect (i32.const 0))", TrapKind::IndirectCallToNull),
        ("(call_indirect (param i32) (i32.const 0) (i32.const 1))", TrapKind::BadSignature),
        ("(drop (i32.div_s (i32.const 0x80000000) (global.get $minus-one)))", TrapKind::IntegerOverflow),
        ("(drop (i32.trunc_f32_s (f32.const 1e30)))", TrapKind::IntegerOverflow),
        ("(drop (i32.rem_u (i32.const 1) (global.get $zero)))", TrapKind::IntegerDivisionByZero),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", TrapKind::BadConversionToInteger),
    ];
    for (instruction, kind) in traps {
        let module = format!(
            r#"(module
                 (memory (export "memory") 1)
                 (table 2 funcref)
                 (elem (i32.const 1) $main)
                 (global $zero (mut i32) (i32.const 0))
                 (global $minus-one (mut i32) (i32.const -1))
                 (func $main (export "_start") {instruction}))"#
        );
        let trap = Guest::new(engine, module).trap().await;
        assert_eq!(trap.kind, kind, "{instruction}: {trap}");
        assert_eq!(trap.message, None, "the kind says it all");
    }
}

async fn a_trap_names_the_guests_functions(engine: &dyn Engine) {
    let module = r#"(module
        (func $inner unreachable)
        (func $outer (export "_start") (call $inner)))"#;
    let trap = Guest::new(engine, module).trap().await;
    assert_eq!(trap.backtrace.as_deref(), Some("  at inner\n  at outer\n"));
    assert_eq!(trap.to_string(), "trap: unreachable instruction executed\nwasm backtrace:\n  at inner\n  at outer");
}

async fn functions_without_a_name_have_an_index(engine: &dyn Engine) {
    let module = r#"(module (func unreachable) (func (export "_start") (call 0)))"#;
    let trap = Guest::new(engine, module).trap().await;
    assert_eq!(trap.backtrace.as_deref(), Some("  at function 0\n  at function 1\n"));
}

async fn a_backtrace_is_short_and_does_nothing_to_a_terminal(engine: &dyn Engine) {
    let name = format!(r"\1b[2J{}", "long".repeat(1000));
    let module = format!(
        r#"(module
             (func $deeper (@name "{name}") (param i32)
               (if (i32.eqz (local.get 0)) (then unreachable))
               (call $deeper (i32.sub (local.get 0) (i32.const 1))))
             (func (export "_start") (call $deeper (i32.const 1000))))"#
    );
    let backtrace = Guest::new(engine, module).trap().await.backtrace.unwrap();
    let lines: Vec<_> = backtrace.lines().collect();
    assert!(lines[0].starts_with(r"  at \u{1b}[2Jlonglong") && lines[0].chars().count() < 300, "{}", lines[0]);
    assert_eq!(lines.len(), 20);
}

async fn a_table_has_ten_million_elements_at_most(engine: &dyn Engine) {
    let grow = r#"
        (table $table 1 funcref)
        (func (export "_start")
          (call $ok (i32.ne (table.grow $table (ref.null func) (i32.const -2)) (i32.const -1)))
          (call $ok (i32.ne (table.grow $table (ref.null func) (i32.const 9999999)) (i32.const 1)))
          (call $ok (i32.ne (table.grow $table (ref.null func) (i32.const 1)) (i32.const -1)))
          (call $ok (i32.ne (table.size $table) (i32.const 10000000))))"#;
    Guest::with_wasi(engine, grow).run().await.result.unwrap();
    let larger = r#"(module (table 10000001 funcref) (func (export "_start")))"#;
    assert!(matches!(Guest::new(engine, larger).instantiate().await, Err(Stop::Trap(_))));
}

async fn recursion_that_calls_the_host_is_a_trap(engine: &dyn Engine) {
    let module = r#"
        (func $deeper (export "_start")
          (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 4096)))
          (call $deeper)
          (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 4096))))"#;
    assert_eq!(Guest::with_wasi(engine, module).trap().await.kind, TrapKind::StackOverflow);
}

/// Frames larger than a guard page must not step over it.
async fn recursion_with_large_frames_is_a_trap(engine: &dyn Engine) {
    let locals = 2_000;
    let fill: String = (0..locals).map(|local| format!("(local.set {local} (call $next))")).collect();
    let sum: String =
        (0..locals).map(|local| format!("(global.set $sum (i64.add (global.get $sum) (local.get {local})))")).collect();
    let module = format!(
        r#"(module
             (global $sum (mut i64) (i64.const 0))
             (func $next (result i64) (global.set $sum (i64.add (global.get $sum) (i64.const 1))) (global.get $sum))
             (func $deeper (export "_start") (local {}) {fill} (call $deeper) {sum}))"#,
        "i64 ".repeat(locals)
    );
    assert_eq!(Guest::new(engine, module).trap().await.kind, TrapKind::StackOverflow);
}

async fn a_trap_in_the_start_function_fails_the_instantiation(engine: &dyn Engine) {
    let guest = Guest::new(engine, "(module (func $main unreachable) (start $main))");
    let Err(Stop::Trap(trap)) = guest.instantiate().await else { panic!("it must trap") };
    assert_eq!(trap.kind, TrapKind::Unreachable);
}

async fn the_next_instance_is_none_the_worse(engine: &dyn Engine) {
    let module = r#"(module
        (global $runs (mut i32) (i32.const 0))
        (func (export "trap") unreachable)
        (func (export "overflow") (call 1))
        (func (export "_start")
          (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
          (if (i32.ne (global.get $runs) (i32.const 1)) (then unreachable))))"#;
    let guest = Guest::new(engine, module);
    for export in ["trap", "overflow", "trap"] {
        assert!(guest.instantiate().await.unwrap().run(export).await.is_err());
        guest.instantiate().await.unwrap().run("_start").await.unwrap();
    }
}

async fn what_is_no_module_is_refused(engine: &dyn Engine) {
    let module = wat::parse_str("(module (func (export \"_start\")))").unwrap();
    for bytes in [b"".as_slice(), b"text", &module[..module.len() - 1], &[module.as_slice(), b"\x0b"].concat()] {
        let error = engine.compile(bytes).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} cannot compile the module: ", engine.name())), "{error}");
    }
}

async fn a_feature_of_one_engine_only_is_refused(engine: &dyn Engine) {
    let modules = [
        "(module (memory 1 1 shared))",
        "(module (memory i64 1))",
        "(module (tag $thrown) (func (throw $thrown)))",
        "(module (func $f (return_call $f)))",
        "(module (type $array (array i8)) (func (drop (array.new_default $array (i32.const 1)))))",
        "(module (type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0))))",
        "(module (func (result i64 i64) (i64.mul_wide_u (i64.const 1) (i64.const 1))))",
    ];
    for module in modules {
        assert!(engine.compile(&wat::parse_str(module).unwrap()).is_err(), "{module}");
    }
    let taken = [
        "(module (func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 1 2) (v128.const i64x2 1 2))))",
        "(module (memory 1) (memory 1) (func (result i32) (i32.load 1 (i32.const 0))))",
        "(module (func (result i32 i32) (i32.const 1) (i32.const 2)))",
        "(module (global i32 (i32.add (i32.const 1) (i32.const 2))))",
        "(module (table 1 funcref) (elem declare func 0) (func (table.set (i32.const 0) (ref.func 0))))",
    ];
    for module in taken {
        let compiled = engine.compile(&wat::parse_str(module).unwrap());
        assert!(compiled.is_ok(), "{module}: {}", compiled.unwrap_err());
    }
}

async fn an_import_of_another_type_fails_the_load(engine: &dyn Engine) {
    let module = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i64))))"#;
    let loaded = engines::engine::compile_and_load(engine, &wat::parse_str(module).unwrap());
    let error = loaded.err().expect("the type is wrong").to_string();
    assert!(error.contains("cannot load the compiled module") && error.contains("proc_exit"), "{error}");
}
