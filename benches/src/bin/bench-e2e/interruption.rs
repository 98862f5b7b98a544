//! Ctrl-C: what is running comes to its end, and what was started goes with the values that stand for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use anyhow::{Result, bail};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on, a signal that would end this process is only noted.
pub(crate) fn watch() -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let [mut hangup, mut interrupt, mut terminate] = {
        let _runtime = runtime.enter();
        [signal(SignalKind::hangup())?, signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = hangup.recv() => {}, _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
        eprintln!("Ending ...");
    });
    Ok(())
}

/// An error once there was such a signal: to be asked before anything that takes a while.
pub(crate) fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
