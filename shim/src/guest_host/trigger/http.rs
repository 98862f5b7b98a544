//! The trigger `http`: a server whose requests guests answer.

mod admission;
mod connection;
mod exchange;
mod handlers;
mod options;

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
    let listener = socket.listen(BACKLOG)?;
    started()?;
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(serve(listener, guests, options, workers, shutdown.clone()));
    let code = signals.next().await;
    shutdown.cancel();
    tokio::select! {
        ended = server => ended?,
        // A second signal does not wait for the requests in flight.
        _ = signals.next() => {}
    }
    Ok(code)
}

/// Answers requests until `shutdown` is cancelled and the requests in flight are answered. Each connection has its worker;
/// to be run apart from these, so that a connection is taken whatever they do.
pub async fn serve(
    listener: TcpListener,
    guests: Guests,
    options: HttpOptions,
    workers: Workers,
    shutdown: CancellationToken,
) {
    let protocols = Protocols::new(&options, &workers);
    let server = Arc::new(Server::new(guests, options, workers.clone()));
    let connections = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
            Ok(stream) => stream,
            // Out of descriptors, or the peer has gone already: the next one may succeed.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = protocols.clone().serve(stream, Arc::clone(&server), shutdown.clone());
        connections.spawn_on(connection, workers.runtime());
    }
    drop(listener);
    connections.close();
    connections.wait().await;
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
