//! The conditional writes, as scripts: what Dapr's own scripts do, so that both may write the same key.

use std::sync::LazyLock;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::connection::{Connection, Failure, Route};

/// What a set that is not refused does; it answers the new version. No command that Dapr's scripts do not call: the rights
/// of a server's user may be cut to fit those.
const WRITE: &str = r"
        local function write(key, data, first_write, ttl)
            redis.call('HSET', key, 'data', data)
            if first_write == '0' then
                redis.call('HSET', key, 'first-write', 0)
            end
            local version = redis.call('HINCRBY', key, 'version', 1)
            if ttl == '0' then
                redis.call('PERSIST', key)
            elseif ttl ~= '' then
                redis.call('EXPIRE', key, ttl)
            end
            return version
        end";

pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    fn new(source: &str) -> Self {
        Self { source: source.to_owned(), hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// Of a script that calls [`WRITE`].
    fn with_write(source: &str) -> Self {
        Self::new(&[WRITE, source].concat())
    }

    /// Runs the script on these keys, of which the first is the route's: by its hash, or with its source where the
    /// server does not know it yet, or lets this user call scripts by their source only, as Dapr does.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        route: Route<'_>,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<Option<i64>, Failure> {
        let call = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let answer = match connection.query(&call("EVALSHA", &self.hash), route).await {
            Err(failure)
                if matches!(
                    failure.error.kind(),
                    ErrorKind::Server(ServerErrorKind::NoScript | ServerErrorKind::NoPerm)
                ) =>
            {
                connection.query(&call("EVAL", &self.source), route).await?
            }
            answer => answer?,
        };
        Ok(redis::from_redis_value(answer).map_err(RedisError::from)?)
    }
}

/// `KEYS[1]`: the key. `ARGV`: the expected version (`0` for none), the data, `0` for first-write (else `1`),
/// the seconds to live (`0` to live for ever, empty to leave the expiry as it is).
///
/// Answers the new version, or nil where the write was refused. Data comes before the version, as Dapr writes
/// them: a small hash lists its fields in the order of their first write.
pub(super) static SET: LazyLock<Script> = LazyLock::new(|| {
    Script::with_write(
        r"
        local key, expected, data, first_write, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        local version = redis.pcall('HGET', key, 'version')
        if type(version) == 'table' then
            redis.call('DEL', key)
            version = false
        end
        if version and version ~= '' and version ~= expected then
            local guarded = redis.call('HGET', key, 'first-write')
            if guarded or expected ~= '0' then
                return false
            end
        end
        return write(key, data, first_write, ttl)
        ",
    )
});

/// `KEYS[1]`: the key. `ARGV[1]`: the etag, where `0` fits every version. Answers nil where it was refused.
pub(super) static DELETE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local version = redis.pcall('HGET', KEYS[1], 'version')
        local free = not version or type(version) == 'table' or version == ''
        if free or version == ARGV[1] or ARGV[1] == '0' then
            return redis.call('DEL', KEYS[1])
        end
        return false
        ",
    )
});

/// `KEYS`: the key of each operation. `ARGV`: five for each operation: `set` or `delete`, then what [`SET`] takes, of
/// which a delete needs the first only.
///
/// Answers 0, or the number of the operation that is refused, from 1. Scripts are not rolled back: whatever the
/// operations would be refused for, given those before them, is found out before the first is done. No operation leaves
/// `first-write`, as none does in Dapr's transactions; one that is a first-write and has no etag needs a key that is not
/// there.
pub(super) static TRANSACT: LazyLock<Script> = LazyLock::new(|| {
    Script::with_write(
        r"
        local versions, guarded = {}, {}
        for _, key in ipairs(KEYS) do
            local version = redis.pcall('HGET', key, 'version')
            local is_hash = type(version) ~= 'table'
            versions[key] = is_hash and version ~= '' and version
            guarded[key] = is_hash and redis.call('HGET', key, 'first-write')
            if versions[key] and not string.match(version, '^%-?%d+$') then
                return redis.error_reply('ERR the version of ' .. key .. ' is not a whole number')
            end
        end
        for index, key in ipairs(KEYS) do
            local first = index * 5 - 4
            local kind, expected, first_write = ARGV[first], ARGV[first + 1], ARGV[first + 3]
            local version = versions[key]
            local fits = not version or version == expected or expected == '0'
            if kind == 'delete' then
                if not fits then
                    return index
                end
                versions[key], guarded[key] = false, false
            else
                local needs_etag = first_write == '0' or guarded[key]
                if not fits or version and version ~= expected and needs_etag then
                    return index
                end
                versions[key] = string.format('%.0f', (tonumber(version) or 0) + 1)
            end
        end
        for index, key in ipairs(KEYS) do
            local first = index * 5 - 4
            local kind, data, ttl = ARGV[first], ARGV[first + 2], ARGV[first + 4]
            if kind == 'delete' then
                redis.call('DEL', key)
            else
                if type(redis.pcall('HGET', key, 'version')) == 'table' then
                    redis.call('DEL', key)
                end
                write(key, data, '1', ttl)
            end
        end
        return 0
        ",
    )
});
