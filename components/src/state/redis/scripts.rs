//! The two conditional writes, as scripts: what Dapr's own scripts do, so that both may write the same key.

use std::sync::LazyLock;

use redis::{ErrorKind, RedisResult, ServerErrorKind};

use super::connection::{Connection, Resend};

pub(super) struct Script {
    source: &'static str,
    hash: String,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { source, hash: redis::Script::new(source).get_hash().to_owned() }
    }

    /// Runs the script on the key that is the first argument: by its hash, or with its source where the server
    /// does not know it yet.
    pub(super) async fn run(
        &self,
        connection: &Connection,
        arguments: &[&[u8]],
        resend: Resend,
    ) -> RedisResult<Option<i64>> {
        let call = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(1).arg(arguments);
            command
        };
        let answer = match connection.query(&call("EVALSHA", &self.hash), resend).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                connection.query(&call("EVAL", self.source), resend).await?
            }
            answer => answer?,
        };
        Ok(redis::from_redis_value(answer)?)
    }
}

/// `KEYS[1]`: the key. `ARGV`: the expected version (`0` for none), the data, `0` for first-write (else `1`),
/// the seconds to live (`0` to live for ever, empty to leave the expiry as it is).
///
/// Answers the new version, or nil where the write was refused. Data comes before the version, as Dapr writes
/// them: a small hash lists its fields in the order of their first write.
pub(super) static SET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local key, expected, data, first_write, ttl = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
        local version = redis.pcall('HGET', key, 'version')
        if type(version) == 'table' then
            redis.call('DEL', key)
            version = false
        end
        if version and version ~= '' and version ~= expected then
            local guarded = redis.call('HEXISTS', key, 'first-write') == 1
            if guarded or expected ~= '0' then
                return false
            end
        end
        redis.call('HSET', key, 'data', data)
        if first_write == '0' then
            redis.call('HSET', key, 'first-write', 0)
        end
        version = redis.call('HINCRBY', key, 'version', 1)
        if ttl == '0' then
            redis.call('PERSIST', key)
        elseif ttl ~= '' then
            redis.call('EXPIRE', key, ttl)
        end
        return version
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
