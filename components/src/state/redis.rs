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
//!
//! The store connects when it is first called. While Redis cannot be reached, every call tries again and answers
//! `unavailable` within `dialTimeout`, or `readTimeout` where that is longer.

mod connection;
mod options;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{
    Concurrency, Consistency, DeleteRequest, GetRequest, GetResponse, Metadata, Operation, SetRequest, StateStore,
};
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use self::connection::{Connection, Resend, Server};
use self::options::Options;
use super::ttl::Ttl;
use super::{etag_invalid, etag_mismatch};
use crate::properties::{InvalidProperty, Properties};

/// How long a strong write waits for the replicas.
const REPLICATION_TIMEOUT: Duration = Duration::from_secs(1);

/// # Errors
/// The metadata is malformed, or asks for what is not supported yet.
pub fn construct(properties: &Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> {
    Ok(Arc::new(Redis::new(&Options::new(properties)?)?))
}

struct Redis {
    address: String,
    connection: Connection,
    /// `WAIT` holds up all that comes after it on its connection: strong writes have their own.
    strong: Connection,
}

impl Redis {
    fn new(options: &Options) -> Result<Self, InvalidProperty> {
        let refused = |error: RedisError| InvalidProperty::Other(error.to_string());
        let server = Arc::new(Server::new());
        Ok(Self {
            address: format!("{}:{}", options.host, options.port),
            connection: Connection::new(options, &server, Duration::ZERO).map_err(refused)?,
            strong: Connection::new(options, &server, REPLICATION_TIMEOUT).map_err(refused)?,
        })
    }

    fn explain(&self, error: &RedisError) -> Error {
        Error::new(class(error), format!("redis at {}: {error}", self.address))
    }

    async fn read(&self, key: &str) -> RedisResult<GetResponse> {
        let by_name = |name| {
            let mut command = redis::cmd(name);
            command.arg(key);
            command
        };
        match self.connection.query(&by_name("HGETALL"), Resend::Safe).await {
            Ok(hash) => item(hash),
            // Not a hash: what others stored as a plain string, which has no etag.
            Err(error) if error.code() == Some("WRONGTYPE") => {
                let value = self.connection.query(&by_name("GET"), Resend::Safe).await?;
                Ok(GetResponse { data: bytes(value)?, ..GetResponse::default() })
            }
            Err(error) => Err(error),
        }
    }

    /// False where the write was refused.
    async fn write(&self, request: &SetRequest, arguments: &WriteArguments) -> RedisResult<bool> {
        let strong = request.options.consistency == Consistency::Strong;
        let connection = if strong { &self.strong } else { &self.connection };
        let arguments_of_script = arguments.of_script(request);
        let version = scripts::SET.run(connection, &[&request.key], &arguments_of_script, arguments.resend).await?;
        if strong && version.is_some() {
            self.wait_for_replicas().await?;
        }
        Ok(version.is_some())
    }

    /// The operation that was refused, if one was: then nothing was done.
    async fn write_all<'a>(
        &self,
        operations: &'a [(Operation, WriteArguments)],
        strong: bool,
    ) -> RedisResult<Option<&'a Operation>> {
        let keys: Vec<&str> = operations.iter().map(|(operation, _)| operation.key()).collect();
        let arguments = operations.iter().flat_map(|(operation, arguments)| match operation {
            Operation::Upsert(request) => {
                let [expected, data, first_write, ttl] = arguments.of_script(request);
                [b"set", expected, data, first_write, ttl]
            }
            Operation::Delete(_) => [b"delete", arguments.expected.as_bytes(), b"", b"", b""],
        });
        let arguments: Vec<&[u8]> = arguments.collect();
        let once = operations.iter().any(|(_, arguments)| arguments.resend == Resend::Unsafe);
        let resend = if once { Resend::Unsafe } else { Resend::Safe };
        let connection = if strong { &self.strong } else { &self.connection };
        let refused = scripts::TRANSACT.run(connection, &keys, &arguments, resend).await?.unwrap_or_default();
        let refused = usize::try_from(refused).ok().and_then(|number| operations.get(number.checked_sub(1)?));
        if strong && refused.is_none() {
            self.wait_for_replicas().await?;
        }
        Ok(refused.map(|(operation, _)| operation))
    }

    /// Until all replicas have the writes of the strong connection, or the time is up; as with Dapr, that too
    /// is a success.
    async fn wait_for_replicas(&self) -> RedisResult<()> {
        let info = self.strong.query(redis::cmd("INFO").arg("replication"), Resend::Safe).await?;
        let replicas = connected_replicas(&redis::from_redis_value::<String>(info)?);
        if replicas > 0 {
            let milliseconds = REPLICATION_TIMEOUT.as_millis() as u64;
            // On another connection there would be nothing to wait for.
            self.strong.query(redis::cmd("WAIT").arg(replicas).arg(milliseconds), Resend::Unsafe).await?;
        }
        Ok(())
    }

    async fn remove(&self, request: &DeleteRequest) -> RedisResult<bool> {
        let Some(etag) = &request.etag else {
            self.connection.query(redis::cmd("DEL").arg(&request.key), Resend::Safe).await?;
            return Ok(true);
        };
        let removed =
            scripts::DELETE.run(&self.connection, &[&request.key], &[etag.as_bytes()], Resend::Unsafe).await?;
        Ok(removed.is_some())
    }
}

#[async_trait]
impl StateStore for Redis {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        refuse_json(request.metadata.as_ref())?;
        self.read(&request.key).await.map_err(|error| self.explain(&error))
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        let arguments = WriteArguments::of(&request)?;
        let written = self.write(&request, &arguments).await.map_err(|error| self.explain(&error))?;
        if written { Ok(()) } else { Err(refused_set(&request)) }
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        refuse_json(request.metadata.as_ref())?;
        let removed = self.remove(&request).await.map_err(|error| self.explain(&error))?;
        if removed { Ok(()) } else { Err(etag_mismatch(&request.key)) }
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let mut strong = false;
        let mut prepared = Vec::with_capacity(operations.len());
        for operation in operations {
            let (arguments, options) = match &operation {
                Operation::Upsert(request) => (WriteArguments::of(request)?, request.options),
                Operation::Delete(request) => (WriteArguments::of_delete(request)?, request.options),
            };
            strong |= options.consistency == Consistency::Strong;
            prepared.push((operation, arguments));
        }
        match self.write_all(&prepared, strong).await.map_err(|error| self.explain(&error))? {
            None => Ok(()),
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
    fn of(request: &SetRequest) -> Result<Self, Error> {
        refuse_json(request.metadata.as_ref())?;
        let expected: i64 = match &request.etag {
            Some(etag) if request.options.concurrency != Concurrency::LastWrite => {
                etag.parse().map_err(|_| etag_invalid(&request.key))?
            }
            _ => 0,
        };
        let first_write = request.options.concurrency == Concurrency::FirstWrite;
        let ttl = Ttl::of(request)?.map(|ttl| ttl.seconds().unwrap_or_default().to_string());
        let resend = if first_write || expected != 0 { Resend::Unsafe } else { Resend::Safe };
        Ok(Self { expected: expected.to_string(), first_write, ttl: ttl.unwrap_or_default(), resend })
    }

    fn of_delete(request: &DeleteRequest) -> Result<Self, Error> {
        refuse_json(request.metadata.as_ref())?;
        let resend = if request.etag.is_some() { Resend::Unsafe } else { Resend::Safe };
        let expected = request.etag.clone().unwrap_or_else(|| "0".to_owned());
        Ok(Self { expected, first_write: false, ttl: String::new(), resend })
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

/// Dapr keeps the values of such requests as documents of the RedisJSON module.
fn refuse_json(metadata: Option<&Metadata>) -> Result<(), Error> {
    let is_json = |(name, value): &(String, String)| name == "contentType" && value == "application/json";
    if metadata.is_some_and(|pairs| pairs.iter().any(is_json)) {
        let message = "contentType application/json stores documents of RedisJSON, which is not supported yet";
        return Err(Error::new(ErrorClass::InvalidArgument, message));
    }
    Ok(())
}

/// The answer to `HGETALL`, a map or a flat array; an empty one is a key that does not exist.
fn item(hash: Value) -> RedisResult<GetResponse> {
    let (mut data, mut version) = (None, None);
    let fields = hash.into_map_iter().map_err(|_| (ErrorKind::UnexpectedReturnType, "HGETALL answered no hash"))?;
    let mut exists = false;
    for (field, value) in fields {
        exists = true;
        match &*bytes(field)? {
            b"data" => data = Some(bytes(value)?),
            b"version" => version = Some(redis::from_redis_value::<String>(value)?),
            _ => {}
        }
    }
    match (data, version) {
        (Some(data), etag @ Some(_)) => Ok(GetResponse { data, etag, ..GetResponse::default() }),
        _ if !exists => Ok(GetResponse::default()),
        _ => Err((ErrorKind::UnexpectedReturnType, "the hash lacks the field `data` or `version`").into()),
    }
}

fn bytes(value: Value) -> RedisResult<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::Nil => Ok(Bytes::new()),
        other => Ok(redis::from_redis_value::<Vec<u8>>(other)?.into()),
    }
}

fn connected_replicas(info: &str) -> u32 {
    let count = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

fn class(error: &RedisError) -> ErrorClass {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, NoPerm, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Io => ErrorClass::Unavailable,
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain) => ErrorClass::Unavailable,
        ErrorKind::Server(NoPerm) | ErrorKind::AuthenticationFailed => ErrorClass::PermissionDenied,
        _ if error.code() == Some("NOAUTH") => ErrorClass::PermissionDenied,
        _ => ErrorClass::Internal,
    }
}
