//! One connection to Redis, shared by all guests, made when it is first needed and again when it is lost.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::io::tcp::TcpSettings;
use redis::{Client, Cmd, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisResult, Value};
use tokio::sync::OnceCell;
use tokio::time;

use super::options::Options;

/// The pauses between attempts, doubling: those of Dapr's client.
const SHORTEST_PAUSE: Duration = Duration::from_millis(8);
const LONGEST_PAUSE: Duration = Duration::from_millis(512);
/// A connection that answered within so many milliseconds is taken to be there still.
const FRESH: u64 = 1000;

/// Filled by the first command that needs a connection; the others wait for it.
type Slot = Arc<OnceCell<ConnectionManager>>;

/// What becomes of a command whose answer did not arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resend {
    /// Sending it twice does no harm.
    Safe,
    /// It may have had its effect, and would be refused, wrongly, when sent again.
    Unsafe,
}

/// What is known of a server through any of the connections to it.
pub(super) struct Server {
    known_since: Instant,
    /// When a connection last broke, in [`milliseconds`](Self::milliseconds).
    broke: AtomicU64,
}

impl Server {
    pub(super) fn new() -> Self {
        Self { known_since: Instant::now(), broke: AtomicU64::new(0) }
    }

    /// Until now, from 1.
    fn milliseconds(&self) -> u64 {
        self.known_since.elapsed().as_millis() as u64 + 1
    }
}

/// Commands of all callers are pipelined; no lock is held while one waits.
///
/// The crate's manager connects again by itself, but hands the failure of an attempt to the next caller, whose
/// server may be back, and keeps one that is no I/O error (a server that is loading, a password) for ever. So it
/// is dropped when it fails, and the next attempt begins with a new one.
pub(super) struct Connection {
    client: Client,
    config: ConnectionManagerConfig,
    max_retries: u32,
    /// How long a call may take with all its attempts; none where an answer may take for ever.
    patience: Option<Duration>,
    slot: Mutex<Slot>,
    server: Arc<Server>,
    /// When the server last answered here, in [`Server::milliseconds`].
    answered: AtomicU64,
}

impl Connection {
    /// `blocked` is how long a command may keep the server busy beyond the usual. Does not connect.
    pub(super) fn new(options: &Options, server: &Arc<Server>, blocked: Duration) -> RedisResult<Self> {
        let mut redis = RedisConnectionInfo::default().set_db(options.database);
        if let Some(username) = &options.username {
            redis = redis.set_username(username);
        }
        if let Some(password) = &options.password {
            redis = redis.set_password(password);
        }
        let info = ConnectionAddr::Tcp(options.host.clone(), options.port)
            .into_connection_info()?
            .set_tcp_settings(TcpSettings::default().set_nodelay(true))
            .set_redis_settings(redis);
        let response_timeout = options.response_timeout.map(|timeout| timeout + blocked);
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(options.dial_timeout))
            .set_response_timeout(response_timeout)
            .set_number_of_retries(0);
        Ok(Self {
            client: Client::open(info)?,
            config,
            max_retries: options.max_retries,
            patience: response_timeout.map(|timeout| timeout.max(options.dial_timeout)),
            slot: Mutex::default(),
            server: Arc::clone(server),
            answered: AtomicU64::new(0),
        })
    }

    /// Sends `command`, again if the connection broke and that is safe. One that must not be sent twice goes
    /// out once, on a connection that was seen alive just before.
    pub(super) async fn query(&self, command: &Cmd, resend: Resend) -> RedisResult<Value> {
        self.within_patience(async {
            if resend == Resend::Safe {
                return self.send_until_answered(command).await;
            }
            if !self.is_fresh() {
                self.send_until_answered(&redis::cmd("PING")).await?;
            }
            self.send(command).await
        })
        .await
    }

    async fn within_patience<T>(&self, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        match self.patience {
            None => work.await,
            Some(patience) => time::timeout(patience, work)
                .await
                .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())),
        }
    }

    async fn send_until_answered(&self, command: &Cmd) -> RedisResult<Value> {
        let mut pause = SHORTEST_PAUSE;
        for _ in 0..self.max_retries {
            match self.send(command).await {
                Err(error) if error.is_io_error() => time::sleep(pause).await,
                answer => return answer,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.send(command).await
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let slot = Arc::clone(&self.slot());
        let connect = || ConnectionManager::new_with_config(self.client.clone(), self.config.clone());
        let mut manager = slot.get_or_try_init(connect).await?.clone();
        let answer = command.query_async(&mut manager).await;
        match &answer {
            Err(error) if error.is_io_error() => self.forget(&slot),
            _ => self.answered.store(self.server.milliseconds(), Ordering::Relaxed),
        }
        answer
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next command connect anew, unless another one saw to that already.
    fn forget(&self, failed: &Slot) {
        self.server.broke.store(self.server.milliseconds(), Ordering::Relaxed);
        let mut slot = self.slot();
        if Arc::ptr_eq(&slot, failed) {
            *slot = Slot::default();
        }
    }

    /// Whether the server answered here a moment ago, and nobody has seen a connection to it break since.
    fn is_fresh(&self) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        answered > self.server.broke.load(Ordering::Relaxed) && self.server.milliseconds() - answered < FRESH
    }
}
