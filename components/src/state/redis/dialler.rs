//! Connections to servers: TCP, TLS, a password, a database.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisResult};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{self, Instant};
use tokio_rustls::TlsConnector;

use super::address::Address;

/// How all servers of one kind are connected to.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) login: RedisConnectionInfo,
    pub(super) tls: Option<TlsConnector>,
    /// For all of it: name, TCP, TLS and password.
    pub(super) timeout: Duration,
    /// From the first byte of a command to the last one of its answer; none waits for ever.
    pub(super) response_timeout: Option<Duration>,
}

impl Dialler {
    /// `blocked` is how long a command may keep the server busy beyond the usual.
    pub(super) async fn connect(&self, address: &Address, blocked: Duration) -> RedisResult<MultiplexedConnection> {
        let config =
            AsyncConnectionConfig::new().set_response_timeout(self.response_timeout.map(|timeout| timeout + blocked));
        time::timeout(self.timeout, self.reach(address, config))
            .await
            .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
    }

    async fn reach(&self, address: &Address, config: AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let addresses: Vec<_> = lookup_host((address.host.as_str(), address.port)).await?.collect();
        let stream = first_of(&addresses, self.timeout).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return self.greet(stream, config).await };
        let name = ServerName::try_from(address.host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.greet(tls.connect(name, stream).await?, config).await
    }

    async fn greet<S>(&self, stream: S, config: AsyncConnectionConfig) -> RedisResult<MultiplexedConnection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (connection, driver) = MultiplexedConnection::new_with_config(&self.login, stream, config).await?;
        // Ends with the last clone of the connection.
        tokio::spawn(driver);
        Ok(connection)
    }
}

/// A connection to the first of a name's addresses that takes one. Each may take its part of the time that is left, as with
/// Go's dialler: one that is silent does not use up all of it.
async fn first_of(addresses: &[SocketAddr], timeout: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let part = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        match time::timeout(part, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn listen(backlog: u32) -> tokio::net::TcpListener {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        socket.listen(backlog).unwrap()
    }

    #[tokio::test]
    async fn a_silent_address_leaves_time_for_the_next() {
        // Nobody takes connections from a queue of one place: the second waits for ever.
        let (silent, listening) = (listen(0), listen(1));
        let addresses = [silent.local_addr().unwrap(), listening.local_addr().unwrap()];
        let _first = TcpStream::connect(addresses[0]).await.unwrap();
        let timeout = Duration::from_millis(400);
        assert_eq!(first_of(&addresses[..1], timeout).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let stream = time::timeout(PATIENCE, first_of(&addresses, timeout)).await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
    }

    #[tokio::test]
    async fn the_last_failure_is_told() {
        let refused = listen(0).local_addr().unwrap();
        assert_eq!(first_of(&[refused], PATIENCE).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(&[], PATIENCE).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
