//! The log of both programs: one line an event, to wherever containerd reads the shim's.

use std::fs::File;
use std::panic;
use std::sync::Mutex;

use tracing_subscriber::filter::LevelFilter;

/// Logs to `file` from now on, panics included. Never consults the environment: in a container that is the guest's.
pub(crate) fn init(file: File, debug: bool) {
    let level = if debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        // A log that nobody reads any more is no reason to write to a container's standard error.
        .log_internal_errors(false)
        .with_max_level(level)
        .with_target(false)
        .with_writer(Mutex::new(file))
        .finish();
    // A second call keeps the first log.
    let _ = tracing::subscriber::set_global_default(subscriber);
    panic::set_hook(Box::new(|panic| tracing::error!(%panic, "internal error")));
}
