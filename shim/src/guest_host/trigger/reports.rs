//! What went wrong in guests, for whoever reads the container's output.

use std::fs::File;
use std::io::Write as _;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Reports that wait until those before them are read. With more, the next is lost.
const MOST_WAITING: usize = 64;

/// Written by a thread of their own, which may wait for a reader; it is started for the first of them.
pub(super) struct Reports {
    output: Arc<File>,
    patience: Duration,
    /// There after the first report.
    writer: Mutex<Option<SyncSender<Report>>>,
}

struct Report {
    text: String,
    written: oneshot::Sender<()>,
}

impl Reports {
    /// `patience` is how long to wait for a report to be written: the output of a container that ends after it has the report,
    /// unless nobody reads.
    pub(super) fn new(output: Arc<File>, patience: Duration) -> Self {
        Self { output, patience, writer: Mutex::default() }
    }

    pub(super) async fn write(&self, text: String) {
        let (written, is_written) = oneshot::channel();
        if self.writer().is_some_and(|writer| writer.try_send(Report { text, written }).is_ok()) {
            let _ = timeout(self.patience, is_written).await;
        }
    }

    /// None as long as there can be no more threads.
    fn writer(&self) -> Option<SyncSender<Report>> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.is_none() {
            *writer = self.start_writer();
        }
        writer.clone()
    }

    fn start_writer(&self) -> Option<SyncSender<Report>> {
        let (reports, waiting) = sync_channel::<Report>(MOST_WAITING);
        let output = Arc::clone(&self.output);
        let write = move || {
            for Report { text, written } in waiting {
                let _ = writeln!(&*output, "{text}");
                let _ = written.send(());
            }
        };
        thread::Builder::new().name("reports".to_owned()).spawn(write).ok()?;
        Some(reports)
    }
}
