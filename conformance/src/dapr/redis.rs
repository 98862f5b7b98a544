//! A hash for each key, written by scripts.

use anyhow::bail;
use testbed::redis::RedisServer;

use super::{Stored, Write};

/// `KEYS[1]`: the key. `ARGV`: the expected version, `0` for any; the bytes; `0` for a first-write, else `1`.
const SET: &str = r#"
local version = redis.pcall("HGET", KEYS[1], "version")
if type(version) == "table" then
    redis.call("DEL", KEYS[1])
    version = nil
end
local first_write = redis.call("HGET", KEYS[1], "first-write")
if not version or version == "" or version == ARGV[1] or (not first_write and ARGV[1] == "0") then
    redis.call("HSET", KEYS[1], "data", ARGV[2])
    if ARGV[3] == "0" then
        redis.call("HSET", KEYS[1], "first-write", 0)
    end
    redis.call("HINCRBY", KEYS[1], "version", 1)
else
    return redis.error_reply("failed to set key " .. KEYS[1])
end
"#;

/// `KEYS[1]`: the key. `ARGV[1]`: the expected version, `0` for any.
const DELETE: &str = r#"
local version = redis.pcall("HGET", KEYS[1], "version")
if not version or type(version) == "table" or version == "" or version == ARGV[1] or ARGV[1] == "0" then
    return redis.call("DEL", KEYS[1])
else
    return redis.error_reply("failed to delete " .. KEYS[1])
end
"#;

pub(crate) struct Redis<'a> {
    pub(super) server: &'a RedisServer,
}

impl Redis<'_> {
    pub(super) fn set(&self, key: &str, write: Write<'_>) -> anyhow::Result<bool> {
        let first_write: &[u8] = if write.first_write { b"0" } else { b"1" };
        let expected = write.etag.unwrap_or("0").as_bytes();
        let is_done = self.run(SET, key, &[expected, write.value, first_write])?;
        if let (true, Some(seconds)) = (is_done, write.seconds) {
            self.server.command::<()>(&["EXPIRE", key, &seconds.to_string()]);
        }
        Ok(is_done)
    }

    pub(super) fn get(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        let fields: Vec<(String, Vec<u8>)> = self.server.command(&["HGETALL", key]);
        let field = |name| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        match (field("data"), field("version")) {
            (Some(value), Some(version)) => Ok(Some(Stored { value, etag: String::from_utf8(version)? })),
            (None, None) => Ok(None),
            _ => bail!("the hash of {key} lacks a field"),
        }
    }

    pub(super) fn delete(&self, key: &str, etag: Option<&str>) -> anyhow::Result<bool> {
        self.run(DELETE, key, &[etag.unwrap_or("0").as_bytes()])
    }

    fn run(&self, script: &str, key: &str, arguments: &[&[u8]]) -> anyhow::Result<bool> {
        let words: [&[u8]; 4] = [b"EVAL", script.as_bytes(), b"1", key.as_bytes()];
        match self.server.ask::<()>(&[&words, arguments].concat()) {
            Ok(()) => Ok(true),
            // The first word of what the scripts say.
            Err(error) if error.code() == Some("failed") => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
