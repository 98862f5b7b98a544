//! The shim's side of a process's terminal: what is typed goes in, what the process shows comes out.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::stdio::{self, StreamNames};

const BUFFER_BYTES: usize = 16 * 1024;
/// How long the end of a process waits for a reader of what it showed.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

pub(super) struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
    /// Keeps the input from its end until containerd closes it.
    input: Option<File>,
    copying_input: Option<AbortHandle>,
    copying_output: JoinHandle<()>,
    process_ended: CancellationToken,
}

impl Terminal {
    /// Begins to copy between the master of a terminal and the FIFOs that containerd named.
    pub(super) fn open(master: OwnedFd, streams: &StreamNames) -> anyhow::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        // SAFETY: an `OwnedFd` is open, and the same descriptor, for as long as it lives.
        #[expect(unsafe_code, reason = "see above")]
        let master = Arc::new(unsafe { AsyncFd::register(master) }?);
        let process_ended = CancellationToken::new();
        let output = stdio::terminal_output(&streams.stdout).context("cannot open the terminal's output")?;
        let copying_output = tokio::spawn(copy_output(Arc::clone(&master), output, process_ended.clone()));
        let mut terminal = Self { master, input: None, copying_input: None, copying_output, process_ended };
        if let Some((reader, kept)) =
            stdio::terminal_input(&streams.stdin).context("cannot open the terminal's input")?
        {
            terminal.input = Some(kept);
            let copy = tokio::spawn(copy_input(reader, Arc::clone(&terminal.master)));
            terminal.copying_input = Some(copy.abort_handle());
        }
        Ok(terminal)
    }

    /// Sets the size in characters; the processes at the terminal get SIGWINCH.
    pub(super) fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = tcgetwinsize(self.master.get_ref())?;
        Ok(tcsetwinsize(self.master.get_ref(), Winsize { ws_col: columns, ws_row: rows, ..size })?)
    }

    pub(super) fn close_input(&mut self) {
        self.input = None;
    }

    /// To be called when the process has ended: nothing is typed any more, and what it showed is passed on before
    /// its end is reported. Where nobody takes it, that does not wait for long.
    pub(super) async fn finish(self) {
        if let Some(copy) = &self.copying_input {
            copy.abort();
        }
        self.process_ended.cancel();
        let _ = timeout(LAST_OUTPUT, AbortOnDropHandle::new(self.copying_output)).await;
    }
}

/// Until every process has closed the terminal, or nothing is left of what an ended one showed: others may
/// keep it open.
async fn copy_output(master: Arc<AsyncFd<OwnedFd>>, output: Option<pipe::Sender>, process_ended: CancellationToken) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut output = output;
    loop {
        let mut read = |master: &OwnedFd| Ok(rustix::io::read(master, &mut buffer)?);
        let read = tokio::select! {
            read = master.async_io(Interest::READABLE, &mut read) => read,
            () = process_ended.cancelled() => read(master.get_ref()),
        };
        let shown = match read {
            Ok(0) => return,
            Ok(length) => &buffer[..length],
            // The terminal's other side is closed, or the process has ended and shows nothing more.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::IO | Errno::AGAIN)) => return,
            Err(error) => return tracing::warn!(%error, "cannot read from a terminal"),
        };
        if let Some(output) = &mut output
            && let Err(error) = output.write_all(shown).await
        {
            return tracing::warn!(%error, "cannot pass on what a terminal shows");
        }
    }
}

async fn copy_input(mut input: pipe::Receiver, master: Arc<AsyncFd<OwnedFd>>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let length = match input.read(&mut buffer).await {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) => return tracing::warn!(%error, "cannot read what is typed"),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            match master.async_io(Interest::WRITABLE, |master| Ok(rustix::io::write(master, rest)?)).await {
                Ok(written) => rest = &rest[written..],
                Err(error) => return tracing::debug!(%error, "a terminal takes no more input"),
            }
        }
    }
}
