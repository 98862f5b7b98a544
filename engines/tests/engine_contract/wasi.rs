//! WASI preview 1: all but files.

use std::io::{Write as _, pipe};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use engines::engine::{Engine, Stop};

use crate::support::{Guest, file};

for_every_engine! {
    arguments_reach_the_guest,
    a_guest_without_arguments_sees_none,
    the_environment_reaches_the_guest,
    input_is_read_to_its_end,
    input_from_a_pipe_ends_when_the_writer_is_gone,
    output_goes_to_its_own_stream,
    the_exit_code_is_the_guests,
    a_guest_that_exited_is_still_callable,
    clocks_go_forward,
    random_numbers_differ,
    a_sleep_takes_as_long_as_it_says,
    a_sleep_of_nothing_ends_at_once,
    what_a_guest_waits_for_stays_as_it_wrote_it,
}

const REALTIME: u32 = 0;
const MONOTONIC: u32 = 1;

const PRINT_ARGUMENTS: &str = r#"
    (func (export "_start")
      (call $ok (call $args_sizes_get (i32.const 16) (i32.const 20)))
      (call $ok (call $args_get (i32.const 4096) (i32.const 8192)))
      (call $print (i32.const 8192) (i32.load (i32.const 20))))"#;

async fn arguments_reach_the_guest(engine: &dyn Engine) {
    let ended = Guest::with_wasi(engine, PRINT_ARGUMENTS).args(&["app", "one", "two words", ""]).run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "app\0one\0two words\0\0");
}

async fn a_guest_without_arguments_sees_none(engine: &dyn Engine) {
    let ended = Guest::with_wasi(engine, PRINT_ARGUMENTS).run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "");
}

async fn the_environment_reaches_the_guest(engine: &dyn Engine) {
    let print = r#"
        (func (export "_start")
          (call $ok (call $environ_sizes_get (i32.const 16) (i32.const 20)))
          (call $ok (call $environ_get (i32.const 4096) (i32.const 8192)))
          (call $print (i32.const 8192) (i32.load (i32.const 20))))"#;
    let ended = Guest::with_wasi(engine, print).env(&[("A", "1"), ("PATH", "/bin:/usr=x")]).run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, "A=1\0PATH=/bin:/usr=x\0");
}

const CAT: &str = r#"(func (export "_start") (call $cat (i32.const 0)))"#;

async fn input_is_read_to_its_end(engine: &dyn Engine) {
    let text = "line\n".repeat(3000);
    let ended = Guest::with_wasi(engine, CAT).stdin(file(&text)).run().await;
    ended.result.unwrap();
    assert_eq!(ended.stdout, text);
}

async fn input_from_a_pipe_ends_when_the_writer_is_gone(engine: &dyn Engine) {
    let (reader, mut writer) = pipe().unwrap();
    let guest = tokio::spawn(Guest::with_wasi(engine, CAT).stdin(reader).run());
    writer.write_all(b"through a pipe").unwrap();
    drop(writer);
    let ended = guest.await.unwrap();
    ended.result.unwrap();
    assert_eq!(ended.stdout, "through a pipe");
}

async fn output_goes_to_its_own_stream(engine: &dyn Engine) {
    let write = r#"
        (data (i32.const 4096) "outerr")
        (func (export "_start")
          (call $write (i32.const 1) (i32.const 4096) (i32.const 3))
          (call $write (i32.const 2) (i32.const 4099) (i32.const 3)))"#;
    let ended = Guest::with_wasi(engine, write).run().await;
    ended.result.unwrap();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("out", "err"));
}

async fn the_exit_code_is_the_guests(engine: &dyn Engine) {
    for code in [0, 1, 7, 125, 126, 200, 255] {
        let exit = format!(r#"(func (export "_start") (call $proc_exit (i32.const {code})) unreachable)"#);
        let ended = Guest::with_wasi(engine, exit).run().await;
        assert!(matches!(ended.result, Err(Stop::Exit(exited)) if exited == code), "{code}: {ended:?}");
    }
}

async fn a_guest_that_exited_is_still_callable(engine: &dyn Engine) {
    let guest = Guest::with_wasi(
        engine,
        r#"(func (export "_start") (call $proc_exit (i32.const 0)))
           (func (export "again") (call $sleep (i64.const 1)) (call $proc_exit (i32.const 3)))"#,
    );
    let mut instance = guest.instantiate().await.unwrap();
    assert!(matches!(instance.run("_start").await, Err(Stop::Exit(0))));
    assert!(matches!(instance.run("again").await, Err(Stop::Exit(3))));
}

async fn clocks_go_forward(engine: &dyn Engine) {
    let earlier = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    for (clock, at_least) in [(REALTIME, earlier), (MONOTONIC, 0)] {
        // Exits with 1 where time stands still or went back.
        let read_twice = format!(
            r#"(func (export "_start")
                 (call $ok (call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const 4096)))
                 (call $sleep (i64.const 1000000))
                 (call $ok (call $clock_time_get (i32.const {clock}) (i64.const 1) (i32.const 4104)))
                 (call $ok (i64.ge_u (i64.load (i32.const 4096)) (i64.load (i32.const 4104))))
                 (call $ok (i64.lt_u (i64.load (i32.const 4096)) (i64.const {at_least}))))"#
        );
        Guest::with_wasi(engine, read_twice).run().await.result.unwrap();
    }
}

async fn random_numbers_differ(engine: &dyn Engine) {
    let random = r#"
        (func (export "_start")
          (call $ok (call $random_get (i32.const 4096) (i32.const 8)))
          (call $ok (call $random_get (i32.const 4104) (i32.const 8)))
          (call $ok (i64.eq (i64.load (i32.const 4096)) (i64.load (i32.const 4104)))))"#;
    Guest::with_wasi(engine, random).run().await.result.unwrap();
}

async fn a_sleep_takes_as_long_as_it_says(engine: &dyn Engine) {
    let sleep = r#"(func (export "_start") (call $sleep (i64.const 50000000)))"#;
    let started = Instant::now();
    Guest::with_wasi(engine, sleep).run().await.result.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(50));
}

async fn a_sleep_of_nothing_ends_at_once(engine: &dyn Engine) {
    let sleep = r#"(func (export "_start") (call $sleep (i64.const 0)))"#;
    Guest::with_wasi(engine, sleep).run().await.result.unwrap();
}

async fn what_a_guest_waits_for_stays_as_it_wrote_it(engine: &dyn Engine) {
    let poll = r#"
        (func (export "_start")
          (call $sleep (i64.const 0))
          (call $ok (i64.ne (i64.load (i32.const 88)) (i64.const 0)))
          ;; Until a time that is over.
          (i32.store (i32.const 80) (i32.const 0))
          (i64.store (i32.const 88) (i64.const 5))
          (i64.store (i32.const 104) (i64.const 1))
          (call $ok (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8)))
          (call $ok (i64.ne (i64.load (i32.const 88)) (i64.const 5)))
          (call $ok (i64.ne (i64.load (i32.const 104)) (i64.const 1))))"#;
    Guest::with_wasi(engine, poll).run().await.result.unwrap();
}
