//! `state.redis`: byte for byte Dapr's layout, so that a Dapr application and a guest can share a key.
//!
//! A value is a hash at its key: `data`, the bytes; `version`, a decimal that counts the writes and is the etag;
//! and `first-write`, `0`, once a first-write came by. Expiry is the key's own.
//! Source: dapr/components-contrib `state/redis/redis.go`.
//!
//! What Dapr's scripts do and one might not expect, done here too, since both must agree on a key:
//! - A set with an etag succeeds where the key does not exist.
//! - A first-write without an etag succeeds on a key that only last-writes wrote. Once `first-write` is there,
//!   every set without an etag fails, a last-write too, until the key is deleted.
//! - A set that says last-write ignores the etag; one that says nothing does not.
//! - A refused set is an etag mismatch only where an etag was given, else a plain error.
//! - A set without `ttlInSeconds` leaves the expiry of the key as it is.
//! - A delete with the etag `0` deletes every version.
//! - A transaction leaves no `first-write`. Here a first-write in it that has no etag is refused where the key exists; by
//!   Dapr it is a write like any other.
//!
//! The store connects when it is first called. While Redis cannot be reached, every command is tried again, and answered
//! `unavailable` within `dialTimeout`, or `readTimeout` where that is longer. A server that is full, or that has too
//! few replicas to write, is `unavailable` as well.
//!
//! In a cluster the keys of a transaction must lie in one slot, by a hash tag (`{order 7}`) or a `keyPrefix` with one;
//! others are `invalid-argument`, and nothing is written. (Dapr, with most versions of its client, does the parts of
//! such a transaction one by one.)
//!
//! Request metadata `contentType: application/json` means a document where the server has RedisJSON, which is refused
//! as not supported yet. Elsewhere it means nothing, as in Dapr.

mod address;
mod answer;
mod connection;
mod dialler;
mod fields;
mod node;
mod options;
mod renewable;
mod scripts;
mod tls;
mod topology;

use std::sync::Arc;

use async_trait::async_trait;
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{
    Concurrency, Consistency, DeleteRequest, GetRequest, GetResponse, Metadata, Operation, SetRequest, StateStore,
};
use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::OnceCell;

use self::address::Address;
use self::answer::{bytes, class, connected_replicas, item};
use self::connection::{Connection, Failure, Resend, Route};
use self::node::{Lane, REPLICATION_TIMEOUT};
use self::options::Options;
use super::ttl::Ttl;
use super::{etag_invalid, etag_mismatch};
use crate::field::Description;
use crate::properties::{InvalidProperty, Properties};

pub const DESCRIPTION: Description = Description {
    about: "A Redis server, a cluster, or the master that sentinels name, with values as Dapr's store has them. \
            [redis.md](redis.md) has more on TLS, clusters and what happens when a master falls.",
    fields: fields::FIELDS,
    // There is no pool: the guests of a worker share a connection to each server, and one for strong writes.
    without_effect: &[
        "poolSize",
        "minIdleConns",
        "maxConnAge",
        "poolTimeout",
        "idleTimeout",
        "idleCheckFrequency",
        "queryIndexes",
        "maxRetryBackoff",
    ],
};

/// # Errors
/// The metadata is malformed.
pub fn construct(properties: &Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> {
    Ok(Arc::new(Redis::new(&Options::new(properties)?)))
}

struct Redis {
    addresses: String,
    connection: Connection,
    /// Of values whose request does not say.
    default_ttl: Option<Ttl>,
    /// Found out by the first request that needs it.
    has_documents: OnceCell<bool>,
}

impl Redis {
    fn new(options: &Options) -> Self {
        let addresses: Vec<String> = options.addresses.iter().map(Address::to_string).collect();
        Self {
            addresses: addresses.join(","),
            connection: Connection::new(options),
            default_ttl: options.default_ttl,
            has_documents: OnceCell::new(),
        }
    }

    fn explain(&self, Failure { error, in_doubt, .. }: &Failure) -> Error {
        let hint = match error.kind() {
            ErrorKind::Server(ServerErrorKind::CrossSlot) => {
                ": the keys of a transaction must lie in one slot of the cluster, by a hash tag in braces"
            }
            _ => "",
        };
        let explained = Error::new(class(error), format!("redis at {}: {error}{hint}", self.addresses));
        if *in_doubt { explained } else { explained.without_effect() }
    }

    async fn read(&self, key: &str) -> Result<GetResponse, Failure> {
        let by_name = |name| {
            let mut command = redis::cmd(name);
            command.arg(key);
            command
        };
        let route = Route { key, lane: Lane::Usual, resend: Resend::Safe };
        match self.connection.query(&by_name("HGETALL"), route).await {
            Ok(hash) => Ok(item(hash)?),
            // Not a hash: what others stored as a plain string, which has no etag.
            Err(failure) if failure.error.code() == Some("WRONGTYPE") => {
                let value = self.connection.query(&by_name("GET"), route).await?;
                Ok(GetResponse { data: bytes(value)?, ..GetResponse::default() })
            }
            Err(failure) => Err(failure),
        }
    }

    /// False where the write was refused.
    async fn write(&self, request: &SetRequest, arguments: &WriteArguments) -> Result<bool, Failure> {
        let lane = lane(request.options.consistency);
        let route = Route { key: &request.key, lane, resend: arguments.resend };
        let version = scripts::SET.run(&self.connection, route, &[&request.key], &arguments.of_script(request)).await?;
        if version.is_some() {
            self.wait_for_replicas(route).await?;
        }
        Ok(version.is_some())
    }

    /// The operation that was refused, if one was: then nothing was done.
    async fn write_all<'a>(
        &self,
        operations: &'a [(Operation, WriteArguments)],
        lane: Lane,
    ) -> Result<Option<&'a Operation>, Failure> {
        let keys: Vec<&str> = operations.iter().map(|(operation, _)| operation.key()).collect();
        let Some(&key) = keys.first() else { return Ok(None) };
        let arguments = operations.iter().flat_map(|(operation, arguments)| match operation {
            Operation::Upsert(request) => {
                let [expected, data, first_write, ttl] = arguments.of_script(request);
                [b"set", expected, data, first_write, ttl]
            }
            Operation::Delete(_) => [b"delete", arguments.expected.as_bytes(), b"", b"", b""],
        });
        let arguments: Vec<&[u8]> = arguments.collect();
        let once = operations.iter().any(|(_, arguments)| arguments.resend == Resend::Unsafe);
        let route = Route { key, lane, resend: if once { Resend::Unsafe } else { Resend::Safe } };
        let refused = scripts::TRANSACT.run(&self.connection, route, &keys, &arguments).await?.unwrap_or_default();
        let refused = usize::try_from(refused).ok().and_then(|number| operations.get(number.checked_sub(1)?));
        if refused.is_none() {
            self.wait_for_replicas(route).await?;
        }
        Ok(refused.map(|(operation, _)| operation))
    }

    /// After a strong write: until all replicas have what was written on its way, or the time is up; as with Dapr,
    /// that too is a success.
    async fn wait_for_replicas(&self, written: Route<'_>) -> Result<(), Failure> {
        let waited = match written.lane {
            Lane::Usual => Ok(()),
            Lane::Strong => self.ask_for_replicas(written).await,
        };
        // Whatever became of this, the write has had its effect.
        waited.map_err(|failure| Failure { in_doubt: true, ..failure })
    }

    async fn ask_for_replicas(&self, written: Route<'_>) -> Result<(), Failure> {
        let route = Route { resend: Resend::Safe, ..written };
        let info = self.connection.query(redis::cmd("INFO").arg("replication"), route).await?;
        let info: String = redis::from_redis_value(info).map_err(RedisError::from)?;
        let replicas = connected_replicas(&info);
        if replicas > 0 {
            let milliseconds = REPLICATION_TIMEOUT.as_millis() as u64;
            // On another connection there would be nothing to wait for.
            let route = Route { resend: Resend::Unsafe, ..written };
            self.connection.query(redis::cmd("WAIT").arg(replicas).arg(milliseconds), route).await?;
        }
        Ok(())
    }

    async fn remove(&self, request: &DeleteRequest) -> Result<bool, Failure> {
        let route = Route { key: &request.key, lane: Lane::Usual, resend: Resend::Safe };
        let Some(etag) = &request.etag else {
            self.connection.query(redis::cmd("DEL").arg(&request.key), route).await?;
            return Ok(true);
        };
        let route = Route { resend: Resend::Unsafe, ..route };
        let removed = scripts::DELETE.run(&self.connection, route, &[&request.key], &[etag.as_bytes()]).await?;
        Ok(removed.is_some())
    }

    /// Dapr keeps the values of such requests as documents of the RedisJSON module, where the server has it.
    async fn refuse_documents(&self, key: &str, metadata: Option<&Metadata>) -> Result<(), Error> {
        let is_json = |(name, value): &(String, String)| name == "contentType" && value == "application/json";
        if !metadata.is_some_and(|pairs| pairs.iter().any(is_json)) {
            return Ok(());
        }
        let has_documents = self.has_documents.get_or_try_init(|| self.find_documents(key)).await;
        if *has_documents.map_err(|failure| self.explain(&failure))? {
            let message = "contentType application/json stores documents of RedisJSON, which is not supported yet";
            return Err(Error::new(ErrorClass::InvalidArgument, message));
        }
        Ok(())
    }

    /// Whether the server has the command, as Dapr asks it.
    async fn find_documents(&self, key: &str) -> Result<bool, Failure> {
        let route = Route { key, lane: Lane::Usual, resend: Resend::Safe };
        match self.connection.query(&redis::cmd("JSON.GET"), route).await {
            Err(Failure { error, .. }) if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Ok(!error.detail().is_some_and(|detail| detail.starts_with("unknown command")))
            }
            answer => answer.map(|_| true),
        }
    }
}

#[async_trait]
impl StateStore for Redis {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        self.refuse_documents(&request.key, request.metadata.as_ref()).await?;
        self.read(&request.key).await.map_err(|failure| self.explain(&failure))
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        let arguments = WriteArguments::of(&request, self.default_ttl)?;
        self.refuse_documents(&request.key, request.metadata.as_ref()).await?;
        let written = self.write(&request, &arguments).await.map_err(|failure| self.explain(&failure))?;
        if written { Ok(()) } else { Err(refused_set(&request)) }
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.refuse_documents(&request.key, request.metadata.as_ref()).await?;
        let removed = self.remove(&request).await.map_err(|failure| self.explain(&failure))?;
        if removed { Ok(()) } else { Err(etag_mismatch(&request.key)) }
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let mut consistency = Consistency::Unspecified;
        let mut prepared = Vec::with_capacity(operations.len());
        for operation in operations {
            let (arguments, options, metadata) = match &operation {
                Operation::Upsert(request) => {
                    (WriteArguments::of(request, self.default_ttl)?, request.options, &request.metadata)
                }
                Operation::Delete(request) => (WriteArguments::of_delete(request), request.options, &request.metadata),
            };
            self.refuse_documents(operation.key(), metadata.as_ref()).await?;
            if options.consistency == Consistency::Strong {
                consistency = Consistency::Strong;
            }
            prepared.push((operation, arguments));
        }
        match self.write_all(&prepared, lane(consistency)).await.map_err(|failure| self.explain(&failure))? {
            None => Ok(()),
            Some(Operation::Upsert(request)) if request.options.concurrency == Concurrency::FirstWrite => {
                Err(etag_mismatch(&request.key))
            }
            Some(Operation::Upsert(request)) => Err(refused_set(request)),
            Some(Operation::Delete(request)) => Err(etag_mismatch(&request.key)),
        }
    }
}

/// What a script is told of a write beside its key and its data.
struct WriteArguments {
    /// Zero stands for any version.
    expected: String,
    first_write: bool,
    /// Seconds; zero stands for ever, nothing for what is there.
    ttl: String,
    resend: Resend,
}

impl WriteArguments {
    fn of(request: &SetRequest, default_ttl: Option<Ttl>) -> Result<Self, Error> {
        let expected: i64 = match &request.etag {
            Some(etag) if request.options.concurrency != Concurrency::LastWrite => {
                etag.parse().map_err(|_| etag_invalid(&request.key))?
            }
            _ => 0,
        };
        let first_write = request.options.concurrency == Concurrency::FirstWrite;
        let ttl = Ttl::of(request)?.or(default_ttl).map(|ttl| ttl.seconds().unwrap_or_default().to_string());
        let resend = if first_write || expected != 0 { Resend::Unsafe } else { Resend::Safe };
        Ok(Self { expected: expected.to_string(), first_write, ttl: ttl.unwrap_or_default(), resend })
    }

    fn of_delete(request: &DeleteRequest) -> Self {
        let resend = if request.etag.is_some() { Resend::Unsafe } else { Resend::Safe };
        let expected = request.etag.clone().unwrap_or_else(|| "0".to_owned());
        Self { expected, first_write: false, ttl: String::new(), resend }
    }

    fn of_script<'a>(&'a self, request: &'a SetRequest) -> [&'a [u8]; 4] {
        let first_write: &[u8] = if self.first_write { b"0" } else { b"1" };
        [self.expected.as_bytes(), &request.value, first_write, self.ttl.as_bytes()]
    }
}

fn refused_set(request: &SetRequest) -> Error {
    if request.etag.is_some() {
        return etag_mismatch(&request.key);
    }
    let message = format!("key {:?} was written by a first-write: a set needs its etag", request.key);
    Error::new(ErrorClass::Internal, message)
}

fn lane(consistency: Consistency) -> Lane {
    match consistency {
        Consistency::Strong => Lane::Strong,
        Consistency::Unspecified | Consistency::Eventual => Lane::Usual,
    }
}
