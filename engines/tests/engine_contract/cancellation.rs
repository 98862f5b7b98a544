//! A guest that is not wanted any more, and guests that wait at the same time.

use std::future::pending;
use std::io::{PipeReader, Read as _, pipe};
use std::sync::Arc;

use engines::engine::{Engine, Stop};
use host_abi::state::GetResponse;
use tokio::sync::{Barrier, Notify};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::support::{Ended, GetStore, Guest, on_one_worker};

for_every_engine! {
    an_endless_loop_can_be_cancelled,
    an_endless_start_function_can_be_cancelled,
    endless_bulk_operations_can_be_cancelled,
    a_guest_that_sleeps_can_be_cancelled,
    a_guest_that_reads_can_be_cancelled,
    a_guest_that_writes_can_be_cancelled,
    a_guest_that_waits_for_its_host_can_be_cancelled,
    a_guest_cancelled_before_it_runs_does_not_run,
    cancelling_one_guest_leaves_the_others_alone,
    a_guest_ends_when_its_call_is_dropped,
    a_guest_that_waits_blocks_no_other,
    a_thousand_guests_can_wait_at_once,
}

/// A guest that says that it runs, then does what the instructions say.
fn guest(engine: &dyn Engine, instructions: &str) -> (Guest, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    let start = format!(
        r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
             (call $allocate (local.get 2) (local.get 3)))
           (data (i32.const 4096) "!")
           (func (export "_start") (call $print (i32.const 4096) (i32.const 1)) {instructions})"#
    );
    (Guest::with_wasi(engine, start).stdout(writer), reader)
}

/// Waits until the guest says that it runs.
async fn runs(mut stdout: PipeReader) -> PipeReader {
    let read = spawn_blocking(move || {
        stdout.read_exact(&mut [0]).unwrap();
        stdout
    });
    read.await.unwrap()
}

/// Waits until nobody can write any more.
async fn is_gone(mut stdout: PipeReader) {
    spawn_blocking(move || stdout.read_to_end(&mut Vec::new()).unwrap()).await.unwrap();
}

async fn cancelled((guest, stdout): (Guest, PipeReader)) {
    let cancel = guest.cancel.clone();
    let guest: JoinHandle<Ended> = tokio::spawn(guest.run());
    let stdout = runs(stdout).await;
    cancel.cancel();
    let ended = guest.await.unwrap();
    assert!(matches!(ended.result, Err(Stop::Cancelled)), "{ended:?}");
    is_gone(stdout).await;
}

async fn an_endless_loop_can_be_cancelled(engine: &dyn Engine) {
    // More than once: whatever an interrupt leaves behind must not trouble the next guest.
    for _ in 0..20 {
        cancelled(guest(engine, "(loop $forever (br $forever))")).await;
    }
}

async fn an_endless_start_function_can_be_cancelled(engine: &dyn Engine) {
    let guest = Guest::new(engine, "(module (func $main (loop $forever (br $forever))) (start $main))");
    let cancel = guest.cancel.clone();
    let instantiated = tokio::spawn(async move { guest.instantiate().await.err() });
    tokio::task::yield_now().await;
    cancel.cancel();
    assert!(matches!(instantiated.await.unwrap(), Some(Stop::Cancelled)));
}

/// A guest that does little else is hardly ever in its own code.
async fn endless_bulk_operations_can_be_cancelled(engine: &dyn Engine) {
    let fill = "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 0xfff0000))";
    let operations = [
        ("(drop (memory.grow (i32.const 0xfff)))", fill),
        ("(drop (memory.grow (i32.const 0xfff)))", &format!("{fill} (drop (memory.grow (i32.const 0)))")),
        (
            "(drop (memory.grow (i32.const 0xfff)))",
            "(memory.copy (i32.const 65536) (i32.const 0x8000000) (i32.const 0x7ff0000))",
        ),
        (
            "(drop (table.grow $table (ref.null func) (i32.const 9000000)))",
            "(table.fill $table (i32.const 0) (ref.null func) (i32.const 9000000))",
        ),
        (
            "(drop (table.grow $table (ref.null func) (i32.const 9000000)))",
            "(table.copy $table $table (i32.const 1) (i32.const 0) (i32.const 8999999))",
        ),
    ];
    // Small ones, so that the interrupt is often within one.
    let init = ("", "(memory.init $some (i32.const 65536) (i32.const 0) (i32.const 11))");
    for (prepare, operation) in operations.into_iter().chain([init; 50]) {
        let (reader, writer) = pipe().unwrap();
        let start = format!(
            r#"(table $table 1 funcref)
               (data $some "a few bytes")
               (func (export "_start")
                 {prepare} (call $print (i32.const 4096) (i32.const 1))
                 (loop $forever {operation} {operation} {operation} {operation} {operation} {operation} (br $forever)))"#
        );
        cancelled((Guest::with_wasi(engine, start).stdout(writer), reader)).await;
    }
}

async fn a_guest_that_sleeps_can_be_cancelled(engine: &dyn Engine) {
    cancelled(guest(engine, "(call $sleep (i64.const 3600000000000))")).await;
}

async fn a_guest_that_reads_can_be_cancelled(engine: &dyn Engine) {
    let (stdin, _writer) = pipe().unwrap();
    let (guest, stdout) = guest(engine, "(drop (call $read (i32.const 0)))");
    cancelled((guest.stdin(stdin), stdout)).await;
}

async fn a_guest_that_writes_can_be_cancelled(engine: &dyn Engine) {
    let fill_the_pipe = "(loop $forever (call $print (i32.const 4096) (i32.const 32768)) (br $forever))";
    cancelled(guest(engine, fill_the_pipe)).await;
}

async fn a_guest_that_waits_for_its_host_can_be_cancelled(engine: &dyn Engine) {
    let (guest, stdout) = guest(engine, "(call $get_key)");
    cancelled((guest.store("state", GetStore(|_| pending())), stdout)).await;
}

async fn a_guest_cancelled_before_it_runs_does_not_run(engine: &dyn Engine) {
    let guest = Guest::new(engine, r#"(module (func (export "_start") (loop $forever (br $forever))))"#);
    guest.cancel.cancel();
    assert!(matches!(guest.run().await.result, Err(Stop::Cancelled)));
}

async fn cancelling_one_guest_leaves_the_others_alone(engine: &dyn Engine) {
    let (other, other_stdout) = guest(engine, "(call $sleep (i64.const 300000000))");
    let other = tokio::spawn(other.run());
    let other_stdout = runs(other_stdout).await;
    cancelled(guest(engine, "(loop $forever (br $forever))")).await;
    other.await.unwrap().result.unwrap();
    is_gone(other_stdout).await;
}

async fn a_guest_ends_when_its_call_is_dropped(engine: &dyn Engine) {
    // It waits now and then: not every engine can end a dropped guest elsewhere.
    let (guest, stdout) = guest(engine, "(loop $forever (call $sleep (i64.const 1000000)) (br $forever))");
    let guest = tokio::spawn(guest.run());
    let stdout = runs(stdout).await;
    guest.abort();
    is_gone(stdout).await;
}

async fn a_guest_that_waits_blocks_no_other(engine: &dyn Engine) {
    tokio::task::block_in_place(|| on_one_worker(two_guests(engine)));
}

async fn two_guests(engine: &dyn Engine) {
    let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let wait = {
        let (asked, go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
        move |_| {
            let (asked, go_on) = (Arc::clone(&asked), Arc::clone(&go_on));
            async move {
                asked.notify_one();
                go_on.notified().await;
                GetResponse::default()
            }
        }
    };
    let (waiting, _stdout) = guest(engine, "(call $get_key)");
    let waiting = tokio::spawn(waiting.store("state", GetStore(wait)).run());
    asked.notified().await;
    let (quick, _stdout) = guest(engine, "(call $get_key)");
    quick.store("state", GetStore(|_| async { GetResponse::default() })).run().await.result.unwrap();
    go_on.notify_one();
    waiting.await.unwrap().result.unwrap();
}

/// More than a runtime has threads for blocking work.
async fn a_thousand_guests_can_wait_at_once(engine: &dyn Engine) {
    const GUESTS: usize = 1000;
    let all_wait = Arc::new(Barrier::new(GUESTS));
    let wait = move |_| {
        let all_wait = Arc::clone(&all_wait);
        async move {
            all_wait.wait().await;
            GetResponse::default()
        }
    };
    let (guest, _stdout) = guest(engine, "(call $get_key)");
    let guest = Arc::new(guest.stdout(tempfile::tempfile().unwrap()).store("state", GetStore(wait)));
    let guests: Vec<JoinHandle<Result<(), Stop>>> = (0..GUESTS)
        .map(|_| {
            let guest = Arc::clone(&guest);
            tokio::spawn(async move { guest.instantiate().await?.run("_start").await })
        })
        .collect();
    for guest in guests {
        guest.await.unwrap().unwrap();
    }
}
