//! The trigger `http`: a server whose requests guests answer.

mod activity;
mod admission;
mod answers;
mod bodies;
mod connection;
mod exchange;
mod handlers;
mod options;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Guests, Signals};
use crate::guest_host::workers::Workers;
use crate::logging::OnceASecond;
use connection::Protocols;
use exchange::Server;
pub use options::{HttpOptions, Instances};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;
/// Until the next attempt when a connection cannot be accepted: descriptors do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(
    socket: TcpSocket,
    guests: Guests,
    options: HttpOptions,
    workers: Workers,
    mut signals: Signals,
    started: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<u8> {
    let shutdown = CancellationToken::new();
    let server = serve(socket.listen(BACKLOG)?, guests, options, workers, shutdown.clone())?;
    started()?;
    let code = signals.next().await;
    shutdown.cancel();
    tokio::select! {
        () = server => {}
        // A second signal does not wait for the requests in flight.
        _ = signals.next() => {}
    }
    Ok(code)
}

/// Has the workers answer requests until `shutdown` is cancelled. The future is ready once the requests in flight are answered.
pub fn serve(
    listener: TcpListener,
    guests: Guests,
    options: HttpOptions,
    workers: Workers,
    shutdown: CancellationToken,
) -> io::Result<impl Future<Output = ()>> {
    let listener = listener.into_std()?;
    let connections = TaskTracker::new();
    let acceptor = Acceptor {
        protocols: Protocols::new(&options, &workers),
        server: Server::new(guests, options, workers.clone()),
        workers: workers.clone(),
        connections: connections.clone(),
        shutdown,
    };
    let accepting = TaskTracker::new();
    for runtime in workers.runtimes() {
        let _runtime = runtime.enter();
        accepting.spawn(acceptor.clone().accept(TcpListener::from_std(listener.try_clone()?)?));
    }
    accepting.close();
    Ok(async move {
        accepting.wait().await;
        connections.close();
        connections.wait().await;
    })
}

/// One of those that take connections: each worker has its own, so that whichever is free takes the next.
#[derive(Clone)]
struct Acceptor {
    protocols: Protocols,
    server: Server,
    workers: Workers,
    connections: TaskTracker,
    shutdown: CancellationToken,
}

impl Acceptor {
    async fn accept(self, listener: TcpListener) {
        static WARNING: OnceASecond = OnceASecond::new();
        let Self { protocols, server, workers, connections, shutdown } = self;
        while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
            let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                // Out of descriptors, or the peer has gone already: the next one may succeed.
                Err(error) => {
                    if WARNING.is_due() {
                        tracing::warn!(%error, "cannot accept a connection");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = protocols.clone().serve(stream, Arc::new(server.clone()), shutdown.clone());
            connections.spawn_on(connection, workers.runtime());
        }
    }
}

/// Takes a port on every address, of both families where the kernel has both.
pub(super) fn bind(port: u16) -> io::Result<TcpSocket> {
    let socket = match TcpSocket::new_v6() {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => return bind_v4(port),
        socket => socket?,
    };
    socket.set_reuseaddr(true)?;
    match socket.bind((Ipv6Addr::UNSPECIFIED, port).into()) {
        // The family is there and switched off.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind_v4(port),
        bound => bound.map(|()| socket),
    }
}

fn bind_v4(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
    Ok(socket)
}
