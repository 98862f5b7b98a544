//! What servers answer, in the words of a state store.

use bytes::Bytes;
use host_abi::error::ErrorClass;
use host_abi::state::GetResponse;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::connection::may_pass;

/// The answer to `HGETALL`, a map or a flat array; an empty one is a key that does not exist.
pub(super) fn item(hash: Value) -> RedisResult<GetResponse> {
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

pub(super) fn bytes(value: Value) -> RedisResult<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::Nil => Ok(Bytes::new()),
        other => Ok(redis::from_redis_value::<Vec<u8>>(other)?.into()),
    }
}

/// From the section `replication` of `INFO`.
pub(super) fn connected_replicas(info: &str) -> u32 {
    let count = info.lines().find_map(|line| line.strip_prefix("connected_slaves:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}

pub(super) fn class(error: &RedisError) -> ErrorClass {
    match error.kind() {
        _ if may_pass(error) => ErrorClass::Unavailable,
        ErrorKind::Server(ServerErrorKind::NoPerm) | ErrorKind::AuthenticationFailed => ErrorClass::PermissionDenied,
        ErrorKind::Server(ServerErrorKind::CrossSlot) => ErrorClass::InvalidArgument,
        _ => match error.code() {
            Some("NOAUTH" | "WRONGPASS") => ErrorClass::PermissionDenied,
            // Full, or not allowed to write for now.
            Some("OOM" | "MISCONF" | "NOREPLICAS") => ErrorClass::Unavailable,
            _ => ErrorClass::Internal,
        },
    }
}
