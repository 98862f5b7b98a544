//! What a Dapr application does to its store: the scripts and statements of Dapr's own stores (components-contrib
//! `state/redis`, `state/sqlite`, `state/postgresql/v2`), here without any of this project's.

mod postgresql;
mod redis;
mod sqlite;

use std::path::Path;

use testbed::redis::RedisServer;

use self::postgresql::Postgresql;
use self::redis::Redis;
use self::sqlite::Sqlite;

/// Keys are those in the store, with their prefix.
pub(crate) enum Dapr<'a> {
    Redis(Redis<'a>),
    Sqlite(Sqlite),
    Postgresql(Postgresql),
}

/// What is written, and how.
#[derive(Clone, Copy, Default)]
pub(crate) struct Write<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) etag: Option<&'a str>,
    pub(crate) first_write: bool,
    /// For ever without.
    pub(crate) seconds: Option<u32>,
}

/// A value and its etag.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: Vec<u8>,
    pub(crate) etag: String,
}

impl<'a> Dapr<'a> {
    pub(crate) fn on_redis(server: &'a RedisServer) -> Self {
        Self::Redis(Redis { server })
    }

    pub(crate) fn on_sqlite(file: &Path) -> anyhow::Result<Self> {
        Sqlite::open(file).map(Self::Sqlite)
    }

    pub(crate) async fn on_postgresql(connection_string: &str, prefix: &str) -> anyhow::Result<Self> {
        Postgresql::connect(connection_string, prefix).await.map(Self::Postgresql)
    }

    /// False where the store refuses it.
    pub(crate) async fn set(&self, key: &str, write: Write<'_>) -> anyhow::Result<bool> {
        match self {
            Self::Redis(redis) => redis.set(key, write),
            Self::Sqlite(sqlite) => sqlite.set(key, write),
            Self::Postgresql(postgresql) => postgresql.set(key, write).await,
        }
    }

    pub(crate) async fn get(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        match self {
            Self::Redis(redis) => redis.get(key),
            Self::Sqlite(sqlite) => sqlite.get(key),
            Self::Postgresql(postgresql) => postgresql.get(key).await,
        }
    }

    /// False where the store refuses it.
    pub(crate) async fn delete(&self, key: &str, etag: Option<&str>) -> anyhow::Result<bool> {
        match self {
            Self::Redis(redis) => redis.delete(key, etag),
            Self::Sqlite(sqlite) => sqlite.delete(key, etag),
            Self::Postgresql(postgresql) => postgresql.delete(key, etag).await,
        }
    }
}
