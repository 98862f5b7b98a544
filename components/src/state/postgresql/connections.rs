//! Connections to the server: a pool of them, made when they are needed.

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Connect, Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError};
use tokio::runtime::Handle;
use tokio::task::{self, JoinHandle};
use tokio::time;
use tokio_postgres::config::SslMode as Negotiation;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, Error};

use super::failure::Failure;
use super::tls::Tls;

/// A connection that was used a moment ago is taken to be there still: the figure of Go's pool.
const FRESH: Duration = Duration::from_secs(1);
/// How long a statement that nobody waits for any more is tried to be cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Connections {
    pool: Pool,
    tls: Arc<Tls>,
}

impl Connections {
    /// Does not connect.
    pub(super) fn new(config: Config, tls: Tls, most: usize) -> Self {
        let tls = Arc::new(tls);
        let manager = Manager::from_connect(config, Connector { tls: Arc::clone(&tls) }, ManagerConfig::default());
        let pool = Pool::builder(manager).max_size(most).pre_recycle(only_if_alive()).build();
        Self { pool: pool.expect("a pool without time limits of its own needs no runtime"), tls }
    }

    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => Failure::Connect(error),
            other => Failure::Unexpected(other.to_string()),
        })?;
        Ok(Lease { connection: Some(connection), tls: Arc::clone(&self.tls) })
    }

    /// Closes the connections that nobody has used for so long.
    pub(super) fn close_idle(&self, time: Duration) {
        self.pool.retain(|_, metrics| metrics.last_used() < time);
    }
}

/// Nobody waits for the answer of a connection that is dead.
fn only_if_alive() -> Hook {
    Hook::async_fn(|client, metrics| {
        let is_fresh = metrics.last_used() < FRESH;
        Box::pin(async move {
            if !is_fresh {
                client.check_connection().await.map_err(HookError::Backend)?;
            }
            Ok(())
        })
    })
}

/// A connection for as long as its work takes. Where the work is given up in the middle, nothing is known of the
/// connection: it is closed, which undoes its transaction, and the server is told not to go on.
pub(super) struct Lease {
    connection: Option<Object>,
    tls: Arc<Tls>,
}

impl Lease {
    pub(super) fn give_back(mut self) {
        self.connection = None;
    }
}

impl Deref for Lease {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.connection.as_ref().expect("a lease that was not given back")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ClientWrapper {
        self.connection.as_mut().expect("a lease that was not given back")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let connection = Object::take(connection);
            if let Ok(runtime) = Handle::try_current() {
                runtime.spawn(cancel(connection.cancel_token(), Arc::clone(&self.tls)));
            }
        }
    }
}

/// On a connection of its own, as PostgreSQL wants it. Where that fails, the statement goes on to its end.
async fn cancel(statement: CancelToken, tls: Arc<Tls>) {
    if let Ok(connector) = task::spawn_blocking(move || tls.connector()).await {
        let _ = time::timeout(CANCEL_TIMEOUT, statement.cancel_query(connector)).await;
    }
}

struct Connector {
    tls: Arc<Tls>,
}

type Connected = Result<(Client, JoinHandle<()>), Error>;

impl Connect for Connector {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let mut config = config.clone();
        let (first, other) = self.tls.mode.ways();
        Box::pin(async move {
            match (self.connect_by(first, &mut config).await, other) {
                (Err(error), Some(other)) if is_about_tls(&error) => self.connect_by(other, &mut config).await,
                (connected, _) => connected,
            }
        })
    }
}

impl Connector {
    async fn connect_by(&self, negotiation: Negotiation, config: &mut Config) -> Connected {
        let tls = Arc::clone(&self.tls);
        let connector = task::spawn_blocking(move || tls.connector()).await.expect("reading files does not panic");
        let (client, connection) = config.ssl_mode(negotiation).connect(connector).await?;
        let task = tokio::spawn(async move {
            // Whoever uses the client is told too.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        Ok((client, task))
    }
}

/// Whether it may help to go with TLS instead of without, or the reverse: the server takes no such connections,
/// or did not get as far as an answer of its own.
fn is_about_tls(error: &Error) -> bool {
    error.code().is_none_or(|code| *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
}
