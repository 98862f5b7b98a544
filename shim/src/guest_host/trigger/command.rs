//! The triggers `command` and `state`: the guest runs once.

use std::sync::Arc;
use std::time::Duration;

use engines::engine::{GuestConfig, Stop};
use tokio_util::sync::CancellationToken;

use super::reports::Reports;
use super::{Guests, Signals, TRAPPED};
use crate::guest_host::workers::Workers;

/// How long a guest that is told to stop may take to notice. Past it the process ends with the guest in it.
const GRACE: Duration = Duration::from_millis(500);
/// How long the end of a guest that trapped waits for its report to be read.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(
    function: String,
    guests: Guests,
    workers: Workers,
    mut signals: Signals,
    started: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let cancel = CancellationToken::new();
    let reports = Reports::new(Arc::clone(&guests.wasi.stderr), PATIENCE);
    started()?;
    let mut guest = workers.runtime().spawn(run_guest(function, guests, cancel.clone()));
    let stopped = tokio::select! {
        stopped = &mut guest => stopped?,
        code = signals.next() => {
            cancel.cancel();
            let _ = tokio::time::timeout(GRACE, guest).await;
            return Ok(code);
        }
    };
    Ok(match stopped {
        Ok(()) => 0,
        // The system keeps eight bits of a code.
        Err(Stop::Exit(code)) => code as u8,
        Err(error) => {
            tokio::select! {
                () = reports.write(error.to_string()) => {}
                _ = signals.next() => {}
            }
            TRAPPED
        }
    })
}

async fn run_guest(function: String, guests: Guests, cancel: CancellationToken) -> Result<(), Stop> {
    let guest = GuestConfig { initializer: None, cancel: Some(cancel), ..guests.config() };
    guests.module.instantiate(guest).await?.run(&function).await
}
