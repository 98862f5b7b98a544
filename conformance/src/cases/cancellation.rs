//! A guest that is not wanted any more ends, whatever it is doing.

use std::io::{PipeReader, Read as _, pipe};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use engines::engine::Stop;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::memory;
use crate::guest::{Ended, Guest, Program, Subject, wat};
use crate::runner::{Case, cases};
use crate::store::{Store, StoreKind};

pub(super) fn cases() -> Vec<Case> {
    [
        cases! {
            "cancellation", wat!("endless-loop");
            an_endless_loop_ends,
            a_guest_that_always_calls_its_host_ends,
            as_many_endless_loops_as_threads_end,
            one_ends_and_the_others_go_on,
            one_cancelled_before_it_starts_does_not_run,
        },
        cases! {
            "cancellation", Program::Rust("hello");
            a_guest_that_sleeps_ends,
            a_guest_that_waits_for_input_ends,
            a_guest_whose_output_nobody_reads_ends,
        },
        cases! { "cancellation", memory::HOSTILE; an_allocator_that_never_returns_ends },
        vec![
            Case::new("cancellation", "a_guest_that_waits_for_a_store_ends", Program::Rust("state"), waits_for_a_store)
                .needs(StoreKind::Redis.server()),
        ],
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A guest that has printed something and goes on.
struct Running {
    cancel: CancellationToken,
    guest: tokio::task::JoinHandle<anyhow::Result<Ended>>,
    stdout: PipeReader,
}

impl Running {
    async fn start(guest: Guest, export: &'static str) -> anyhow::Result<Self> {
        let cancel = CancellationToken::new();
        let (mut stdout, writer) = pipe()?;
        let guest = guest.cancelled_by(&cancel).stdout(writer);
        let guest = tokio::spawn(async move { guest.run(export).await });
        let stdout = spawn_blocking(move || stdout.read_exact(&mut [0]).map(|()| stdout)).await??;
        Ok(Self { cancel, guest, stdout })
    }

    /// Cancels the guest, which must end for that reason.
    async fn cancel(self) -> anyhow::Result<()> {
        self.cancel.cancel();
        // Keeps its output open until it has ended.
        let Self { guest, stdout: _stdout, cancel: _ } = self;
        is_cancelled(guest.await??)
    }
}

fn is_cancelled(ended: Ended) -> anyhow::Result<()> {
    ensure!(matches!(ended.stopped, Err(Stop::Cancelled)), "ended with {:?}", ended.stopped);
    Ok(())
}

async fn an_endless_loop_ends(subject: Subject) -> anyhow::Result<()> {
    Running::start(subject.guest()?, "_start").await?.cancel().await
}

async fn a_guest_that_always_calls_its_host_ends(subject: Subject) -> anyhow::Result<()> {
    let mut running = Running::start(subject.guest()?, "print").await?;
    let mut stdout = running.stdout.try_clone()?;
    // Reads to the end, which comes when nobody can write any more.
    let reader = spawn_blocking(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    running.cancel.cancel();
    is_cancelled((&mut running.guest).await??)?;
    reader.await??;
    Ok(())
}

async fn as_many_endless_loops_as_threads_end(subject: Subject) -> anyhow::Result<()> {
    let mut running = Vec::new();
    for _ in 0..crate::runner::WORKERS {
        running.push(Running::start(subject.guest()?, "_start").await?);
    }
    for guest in running {
        guest.cancel().await?;
    }
    Ok(())
}

async fn one_ends_and_the_others_go_on(subject: Subject) -> anyhow::Result<()> {
    let other = Running::start(subject.guest()?, "_start").await?;
    for _ in 0..3 {
        Running::start(subject.guest()?, "_start").await?.cancel().await?;
    }
    ensure!(!other.guest.is_finished());
    other.cancel().await
}

async fn one_cancelled_before_it_starts_does_not_run(subject: Subject) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ended = subject.guest()?.cancelled_by(&cancel).start().await?;
    ensure!(ended.stdout == b"", "it ran");
    is_cancelled(ended)
}

/// Cancels a guest that was given some time to begin: there is nothing that it could tell.
async fn cancelled_while_waiting(guest: Guest, export: &'static str) -> anyhow::Result<()> {
    let cancel = CancellationToken::new();
    let guest = guest.cancelled_by(&cancel);
    let guest = tokio::spawn(async move { guest.run(export).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(!guest.is_finished(), "it does not wait");
    cancel.cancel();
    is_cancelled(guest.await??)
}

async fn a_guest_that_sleeps_ends(subject: Subject) -> anyhow::Result<()> {
    cancelled_while_waiting(subject.guest()?.args(&["hello", "sleep", "1000"]), "_start").await
}

async fn a_guest_that_waits_for_input_ends(subject: Subject) -> anyhow::Result<()> {
    let (reader, _writer) = pipe()?;
    cancelled_while_waiting(subject.guest()?.args(&["hello", "stdin"]).stdin(reader), "_start").await
}

async fn a_guest_whose_output_nobody_reads_ends(subject: Subject) -> anyhow::Result<()> {
    let (_reader, writer) = pipe()?;
    let zeros = std::fs::File::open("/dev/zero").context("/dev/zero")?;
    cancelled_while_waiting(subject.guest()?.args(&["hello", "stdin"]).stdin(zeros).stdout(writer), "_start").await
}

async fn an_allocator_that_never_returns_ends(subject: Subject) -> anyhow::Result<()> {
    cancelled_while_waiting(subject.guest()?.state_stores(memory::stored().await?), "allocator-loops").await
}

async fn waits_for_a_store(subject: Subject) -> anyhow::Result<()> {
    let mut store = Store::new(StoreKind::Redis)?;
    store.redis()?.command::<()>(&["CLIENT", "PAUSE", "100000"]);
    let guest = subject.guest()?.args(&["state", "get", "key"]).state_stores(store.state_stores());
    cancelled_while_waiting(guest, "_start").await
}
