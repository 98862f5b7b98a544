//! One connection: HTTP/1.1, or HTTP/2 where the client begins with it (h2c with prior knowledge).

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, SMALL, UnderWay};
use super::exchange::Server;
use super::options::HttpOptions;
use crate::guest_host::workers::Workers;
use crate::logging::OnceASecond;

/// How long a client may take to read on when the container is to end.
const PATIENCE_AT_SHUTDOWN: Duration = Duration::from_secs(5);
/// Streams of an HTTP/2 connection. With fewer, clients that begin before they know would have some refused (RFC 9113,
/// 6.5.2).
const STREAMS: u32 = 100;

#[derive(Clone)]
pub(super) struct Protocols {
    http: auto::Builder<Workers>,
    idle_timeout: Duration,
}

impl Protocols {
    pub(super) fn new(options: &HttpOptions, workers: &Workers) -> Self {
        let mut http = auto::Builder::new(workers.clone());
        http.http1().timer(TokioTimer::new()).header_read_timeout(options.idle_timeout);
        http.http2()
            .timer(TokioTimer::new())
            // Whoever does not answer is gone, and would never end a connection that is closed.
            .keep_alive_interval(options.idle_timeout)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(options.max_header_size).unwrap_or(u32::MAX));
        Self { http, idle_timeout: options.idle_timeout }
    }

    /// Answers what comes until the client goes, is idle for too long, or everything under way at the shutdown is
    /// answered.
    pub(super) async fn serve(self, stream: TcpStream, server: Arc<Server>, shutdown: CancellationToken) {
        static WARNING: OnceASecond = OnceASecond::new();
        let stream = match net::TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                if WARNING.is_due() {
                    tracing::warn!(%error, "cannot serve a connection");
                }
                return;
            }
        };
        // Answers are small and whole: waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new(self.idle_timeout));
        let service = service_fn(|request| {
            let (server, activity) = (Arc::clone(&server), Arc::clone(&activity));
            async move {
                let under_way = UnderWay::begin(&activity);
                let response = server.answer(request, &activity).await;
                drop(under_way);
                Ok::<_, Infallible>(response)
            }
        });
        let stream = Watched { stream: TokioIo::new(stream), activity: Arc::clone(&activity), written: 0 };
        let mut connection = pin!(self.http.serve_connection(stream, service));
        let is_to_end = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = activity.idle_or_overdue(self.idle_timeout) => {}
            }
        };
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = is_to_end => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = self.nothing_moves(&activity, &shutdown) => Err("the client neither reads nor goes".into()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "connection ended");
        }
    }

    /// Waits until a connection that is to end is at work on nothing, and nobody has read of its answers for a while.
    async fn nothing_moves(&self, activity: &Activity, shutdown: &CancellationToken) {
        tokio::select! {
            () = activity.done_or_overdue(self.idle_timeout) => {}
            () = async {
                shutdown.cancelled().await;
                activity.done_or_overdue(self.idle_timeout.min(PATIENCE_AT_SHUTDOWN)).await;
            } => {}
        }
    }
}

/// A connection's stream, whose answers are activity for as long as somebody reads them.
struct Watched {
    stream: TokioIo<net::TcpStream>,
    activity: Arc<Activity>,
    /// Since that was last noted.
    written: usize,
}

impl Watched {
    fn stream(&mut self) -> Pin<&mut TokioIo<net::TcpStream>> {
        Pin::new(&mut self.stream)
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written {
            self.written += bytes;
        }
        if self.written >= SMALL {
            self.written = 0;
            self.activity.note();
        }
        written
    }
}

impl Read for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, into)
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream().poll_write_vectored(cx, parts);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
