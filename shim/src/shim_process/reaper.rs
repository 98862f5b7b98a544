//! The ends of the shim's children, among them those whose parents have gone.

use std::io;

use containerd_shim::asynchronous::monitor::monitor_notify_by_pid;
use rustix::io::Errno;
use rustix::process::{WaitOptions, getpid, set_child_subreaper, wait};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// From now on every child is reaped, and who subscribed to `Topic::Pid` is told. To be called before there is any
/// child.
pub(super) fn start() -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let children = signal(SignalKind::child())?;
    // A node that goes down stops containerd and its containers in an order of its own: the shim is needed to the end.
    let deaf_to = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    tokio::spawn(reap(children, deaf_to));
    Ok(())
}

async fn reap(mut children: Signal, _deaf_to: [Signal; 2]) {
    while children.recv().await.is_some() {
        while let Some((pid, status)) = next_exit() {
            if let Err(error) = monitor_notify_by_pid(pid, status).await {
                tracing::error!(%error, pid, "nobody could be told of an exit");
            }
        }
    }
}

/// A child that has ended, and its status as a shell has it.
fn next_exit() -> Option<(i32, i32)> {
    match wait(WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            let status = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
            Some((pid.as_raw_nonzero().get(), status.unwrap_or(255)))
        }
        Ok(None) | Err(Errno::CHILD) => None,
        Err(error) => {
            tracing::error!(%error, "cannot wait for children");
            None
        }
    }
}
