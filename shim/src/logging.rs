//! The log of the shim and of guest hosts: one line an event, to the file that each has for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd as _, RawFd};
use std::panic;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;

/// They warn at every start of each cgroup controller that the kernel has not.
const LIBRARIES: [&str; 2] = ["libcgroups", "libcontainer"];

/// How long a line that comes again and again is left out.
const PAUSE: Duration = Duration::from_secs(1);

/// The container that all lines are about, where they are about one.
static CONTAINER: OnceLock<String> = OnceLock::new();

/// Where it goes.
static DESCRIPTOR: OnceLock<RawFd> = OnceLock::new();

/// The descriptor that lines are written to, for as long as this process runs.
pub(crate) fn descriptor() -> Option<RawFd> {
    DESCRIPTOR.get().copied()
}

/// Has every line from now on name the container.
pub(crate) fn name_container(id: &str) {
    let _ = CONTAINER.set(id.to_owned());
}

/// Of lines that a guest or its clients can cause as often as they like, one a second.
pub(crate) struct OnceASecond(Mutex<Option<Instant>>);

impl OnceASecond {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the line may be written now.
    pub(crate) fn is_due(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
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
    let _ = DESCRIPTOR.set(file.as_raw_fd());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_comes_again_and_again_is_due_once_a_second() {
        let limit = OnceASecond::new();
        assert!(limit.is_due());
        assert!(!limit.is_due());
        *limit.0.lock().unwrap() = Instant::now().checked_sub(PAUSE);
        assert!(limit.is_due());
        assert!(!limit.is_due());
    }
}
