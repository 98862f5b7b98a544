//! The log of both programs: one line an event, to wherever containerd reads the shim's.

use std::fs::File;
use std::panic;
use std::sync::Mutex;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;

/// They warn at every start of each cgroup controller that the kernel has not.
const LIBRARIES: [&str; 2] = ["libcgroups", "libcontainer"];

/// Logs to `file` from now on, panics included. Never consults the environment: in a container that is the guest's.
pub(crate) fn init(file: File, debug: bool) {
    let (own, libraries) =
        if debug { (LevelFilter::DEBUG, LevelFilter::DEBUG) } else { (LevelFilter::INFO, LevelFilter::ERROR) };
    let levels = Targets::new().with_default(own).with_targets(LIBRARIES.map(|library| (library, libraries)));
    let lines = fmt::layer()
        .with_ansi(false)
        // A log that nobody reads any more is no reason to write to a container's standard error.
        .log_internal_errors(false)
        .with_target(false)
        .with_writer(Mutex::new(file));
    // A second call keeps the first log.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(levels).with(lines));
    panic::set_hook(Box::new(|panic| tracing::error!(%panic, "internal error")));
}
