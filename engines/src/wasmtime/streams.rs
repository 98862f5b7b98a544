//! Standard streams on descriptors of any kind. A guest that waits for one waits without its thread, and can be
//! cancelled: wasmtime-wasi's own streams for files block in the system call.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// A pipe that is ready for writing takes this many bytes without waiting (`PIPE_BUF`, pipe(7)).
const WRITE_AT_ONCE: usize = 4096;
/// More is read in several steps.
const READ_AT_ONCE: usize = 64 << 10;
/// How long a thread waits for a descriptor before it looks whether anyone still waits for it.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

#[derive(Clone)]
pub(super) struct Input(Arc<File>);

#[derive(Clone)]
pub(super) struct Output(Arc<File>);

impl Input {
    pub(super) fn new(file: &Arc<File>) -> Self {
        Self(Arc::clone(file))
    }
}

impl Output {
    pub(super) fn new(file: &Arc<File>) -> Self {
        Self(Arc::clone(file))
    }
}

fn is_ready(file: &File, flags: PollFlags, patience: Timespec) -> bool {
    let mut descriptor = [PollFd::new(file, flags)];
    // A descriptor that cannot be polled is as ready as it will be: the call on it tells why.
    !matches!(poll(&mut descriptor, Some(&patience)), Ok(0))
}

/// Waits until a call on the descriptor will not wait.
async fn until_ready(file: &Arc<File>, flags: PollFlags) {
    if is_ready(file, flags, NONE) {
        return;
    }
    let (waker, woken) = oneshot::channel::<()>();
    let file = Arc::clone(file);
    tokio::task::spawn_blocking(move || {
        while !waker.is_closed() && !is_ready(&file, flags, PATIENCE) {}
        let _ = waker.send(());
    });
    let _ = woken.await;
}

fn failed(error: io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        until_ready(&self.0, PollFlags::IN).await;
    }
}

impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if !is_ready(&self.0, PollFlags::IN, NONE) {
            return Ok(Bytes::new());
        }
        let mut bytes = vec![0; size.min(READ_AT_ONCE)];
        let length = (&*self.0).read(&mut bytes).map_err(failed)?;
        if length == 0 && size > 0 {
            return Err(StreamError::Closed);
        }
        bytes.truncate(length);
        Ok(bytes.into())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        until_ready(&self.0, PollFlags::OUT).await;
    }
}

impl OutputStream for Output {
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if is_ready(&self.0, PollFlags::OUT, NONE) { WRITE_AT_ONCE } else { 0 })
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        (&*self.0).write_all(&bytes).map_err(failed)
    }

    /// Nothing is held back.
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
}

impl StdinStream for Input {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&*self.0)
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        std::io::IsTerminal::is_terminal(&*self.0)
    }
}

/// For WASI preview 3, which nothing here links.
impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let length = (&*self.0).read(into.initialize_unfilled())?;
        into.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready((&*self.0).write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
