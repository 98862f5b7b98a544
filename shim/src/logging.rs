//! The log of both programs: one line an event, to wherever containerd reads the shim's.

use std::fs::File;
use std::io::{self, Write};
use std::panic;
use std::sync::{Mutex, OnceLock};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;

/// They warn at every start of each cgroup controller that the kernel has not.
const LIBRARIES: [&str; 2] = ["libcgroups", "libcontainer"];

/// The container that all lines are about, where they are about one.
static CONTAINER: OnceLock<String> = OnceLock::new();

/// Has every line from now on name the container.
pub(crate) fn name_container(id: &str) {
    let _ = CONTAINER.set(id.to_owned());
}

struct Lines(File);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match (CONTAINER.get(), line.strip_suffix(b"\n")) {
            (Some(id), Some(text)) => {
                let named = [text, b" container.id=", id.as_bytes(), b"\n"].concat();
                self.0.write_all(&named).map(|()| line.len())
            }
            _ => self.0.write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

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
        .with_writer(Mutex::new(Lines(file)));
    // A second call keeps the first log.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(levels).with(lines));
    panic::set_hook(Box::new(|panic| tracing::error!(%panic, "internal error")));
}
