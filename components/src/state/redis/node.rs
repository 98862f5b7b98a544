//! One server, and the connections to it that guests share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::runtime::{Handle, Id};

use super::address::Address;
use super::dialler::Dialler;
use super::renewable::Renewable;

/// How long a strong write waits for the replicas.
pub(super) const REPLICATION_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that answered within so many milliseconds is taken to be there still.
const FRESH: u64 = 1000;

/// Commands of all callers are pipelined. `WAIT` holds up all that comes after it on its connection: strong writes
/// have their own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    Usual,
    Strong,
}

impl Lane {
    /// How long a command may take beyond the usual.
    pub(super) fn blocked(self) -> Duration {
        match self {
            Self::Usual => Duration::ZERO,
            Self::Strong => REPLICATION_TIMEOUT,
        }
    }
}

pub(super) struct Failure {
    pub(super) error: RedisError,
    /// Whether the command may have had its effect all the same: it was sent, and its answer did not arrive.
    pub(super) in_doubt: bool,
    /// Who is to be asked instead, once.
    pub(super) asks: Option<Address>,
}

/// Of what was answered, and is not what it should be.
impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self { error, in_doubt: true, asks: None }
    }
}

impl Failure {
    pub(super) fn without_effect(error: RedisError) -> Self {
        Self { error, in_doubt: false, asks: None }
    }
}

/// Connected to when it is first needed, and again when the connection is lost.
pub(super) struct Node {
    pub(super) address: Address,
    dialler: Arc<Dialler>,
    known_since: Instant,
    /// When a connection last broke, in [`milliseconds`](Self::milliseconds).
    broke: AtomicU64,
    /// Each runtime has its own: what its guests ask for is sent and received there, and wakes no other thread.
    links: Mutex<HashMap<(Id, Lane), Arc<Link>>>,
}

#[derive(Default)]
struct Link {
    connection: Renewable<MultiplexedConnection>,
    /// When the server last answered here.
    answered: AtomicU64,
}

impl Node {
    pub(super) fn new(address: Address, dialler: &Arc<Dialler>) -> Self {
        Self {
            address,
            dialler: Arc::clone(dialler),
            known_since: Instant::now(),
            broke: AtomicU64::new(0),
            links: Mutex::default(),
        }
    }

    /// Sends one command, once. `asking` has a server of a cluster serve a slot that it is about to get.
    pub(super) async fn send(&self, lane: Lane, command: &Cmd, asking: bool) -> Result<Value, Failure> {
        let link = self.link(lane);
        // It takes kilobytes, which a command would carry along whenever there is nothing to connect.
        let connect = || Box::pin(self.dialler.connect(&self.address, lane.blocked()));
        let connection = link.connection.get(connect).await.map_err(Failure::without_effect)?;
        let answer = exchange(connection.value.clone(), command, asking).await;
        match answer {
            Err(error) if error.is_io_error() => {
                self.broke.store(self.milliseconds(), Ordering::Relaxed);
                link.connection.discard(&connection);
                Err(Failure { error, in_doubt: true, asks: None })
            }
            answer => {
                link.answered.store(self.milliseconds(), Ordering::Relaxed);
                answer.map_err(Failure::without_effect)
            }
        }
    }

    /// Whether a command can be sent without connecting first.
    pub(super) fn is_connected(&self, lane: Lane) -> bool {
        self.link(lane).connection.is_made()
    }

    /// Whether the server answered here a moment ago, and nobody has seen a connection to it break since.
    pub(super) fn is_fresh(&self, lane: Lane) -> bool {
        let answered = self.link(lane).answered.load(Ordering::Relaxed);
        answered > self.broke.load(Ordering::Relaxed) && self.milliseconds() - answered < FRESH
    }

    /// Has the next command connect anew.
    pub(super) fn hang_up(&self) {
        self.links().values().for_each(|link| link.connection.discard_any());
    }

    /// Of the runtime that asks.
    fn link(&self, lane: Lane) -> Arc<Link> {
        Arc::clone(self.links().entry((Handle::current().id(), lane)).or_default())
    }

    fn links(&self) -> MutexGuard<'_, HashMap<(Id, Lane), Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until now, from 1.
    fn milliseconds(&self) -> u64 {
        self.known_since.elapsed().as_millis() as u64 + 1
    }
}

/// `ASKING` counts for the command right behind it: both go out as one, lest another caller's come between them.
async fn exchange(mut connection: MultiplexedConnection, command: &Cmd, asking: bool) -> RedisResult<Value> {
    if !asking {
        return command.query_async(&mut connection).await;
    }
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command.clone());
    let answer = connection.req_packed_commands(&both, 1, 1).await?;
    answer.into_iter().next().unwrap_or_default().extract_error()
}
