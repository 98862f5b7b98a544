//! Connections to servers: TCP, TLS, a password, a database.

use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, RedisResult};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;
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
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
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
