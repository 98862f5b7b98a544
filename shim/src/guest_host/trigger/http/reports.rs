//! What went wrong in guests, for whoever reads the container's output.

use std::fs::File;
use std::io::Write as _;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// Reports that wait until those before them are read. With more, the next is lost.
const MOST_WAITING: usize = 64;
/// How long an answer waits for its report to be written: the output of a container that ends after it has the report.
const PATIENCE: Duration = Duration::from_secs(1);

/// Written by a thread of their own, which may wait for a reader; it is started for the first of them.
pub(super) struct Reports {
    output: Arc<File>,
    writer: OnceLock<Option<SyncSender<Report>>>,
}

struct Report {
    text: String,
    written: oneshot::Sender<()>,
}

impl Reports {
    pub(super) fn new(output: Arc<File>) -> Self {
        Self { output, writer: OnceLock::new() }
    }

    pub(super) async fn write(&self, text: String) {
        let (written, is_written) = oneshot::channel();
        let writer = self.writer.get_or_init(|| self.start_writer());
        if writer.as_ref().is_some_and(|writer| writer.try_send(Report { text, written }).is_ok()) {
            let _ = timeout(PATIENCE, is_written).await;
        }
    }

    /// None where there can be no more threads.
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
