//! Dapr stores, configured the way their users do it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use components::{App, Registry};
use host_abi::error::ErrorClass;
use host_abi::state::StateStore;
use tempfile::TempDir;
use testbed::postgresql::{self, PostgresqlServer};
use testbed::redis::RedisServer;

use crate::dapr::Dapr;

/// The file of a store in SQLite.
const DATABASE: &str = "state.db";

/// The component's name in every manifest here.
pub(crate) const NAME: &str = "state";

/// The kinds of store there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    InMemory,
    Sqlite,
    Redis,
    Postgresql,
}

impl StoreKind {
    pub(crate) const ALL: [Self; 4] = [Self::InMemory, Self::Sqlite, Self::Redis, Self::Postgresql];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InMemory => "in-memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
        }
    }

    /// Of the component type.
    fn version(self) -> &'static str {
        if self == Self::Postgresql { "v2" } else { "v1" }
    }

    /// The program that a store of this kind needs.
    pub(crate) fn server(self) -> Option<PathBuf> {
        match self {
            Self::InMemory | Self::Sqlite => None,
            Self::Redis => Some("redis-server".into()),
            // Where Debian has it is not among the folders of commands.
            Self::Postgresql => Some(postgresql::programs().unwrap_or_default().join("postgres")),
        }
    }
}

/// A store that nobody has used yet, with the server or the folder it needs.
pub(crate) struct Store {
    kind: StoreKind,
    stores: BTreeMap<String, Arc<dyn StateStore>>,
    redis: Option<RedisServer>,
    postgresql: Option<Tables>,
    folder: TempDir,
}

/// Of one store, on a server that stores share.
struct Tables {
    server: Arc<PostgresqlServer>,
    prefix: String,
}

impl Store {
    pub(crate) fn new(kind: StoreKind) -> anyhow::Result<Self> {
        Self::for_app(kind, &App::default())
    }

    pub(crate) fn for_app(kind: StoreKind, app: &App) -> anyhow::Result<Self> {
        Self::with(kind, (kind == StoreKind::Redis).then(RedisServer::start), app)
    }

    /// On a Redis server that has lost nothing it answered when it is restarted.
    pub(crate) fn on_durable_redis() -> anyhow::Result<Self> {
        let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
        Self::with(StoreKind::Redis, Some(server), &App::default())
    }

    fn with(kind: StoreKind, redis: Option<RedisServer>, app: &App) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let postgresql = (kind == StoreKind::Postgresql).then(|| {
            let server = PostgresqlServer::shared();
            Tables { prefix: server.unused_prefix(), server }
        });
        let property = match (kind, &redis, &postgresql) {
            (StoreKind::Sqlite, _, _) => {
                format!("{{name: connectionString, value: {:?}}}", folder.path().join(DATABASE))
            }
            (_, Some(server), _) => format!("{{name: redisHost, value: {:?}}}", server.host()),
            (_, _, Some(Tables { server, prefix })) => format!(
                "{{name: connectionString, value: {:?}}}, {{name: tablePrefix, value: {prefix:?}}}",
                server.connection_string(),
            ),
            (_, None, None) => String::new(),
        };
        let manifests = folder.path().join("components");
        fs::create_dir(&manifests)?;
        let manifest = format!(
            "apiVersion: dapr.io/v1alpha1\n\
             kind: Component\n\
             metadata: {{name: {NAME}}}\n\
             spec: {{type: state.{}, version: {}, metadata: [{property}]}}\n",
            kind.name(),
            kind.version()
        );
        fs::write(manifests.join("state.yaml"), manifest)?;
        let stores = Registry::builtin().load(&[manifests], app)?.state_stores;
        Ok(Self { kind, stores, redis, postgresql, folder })
    }

    /// What a guest's host functions act on.
    pub(crate) fn state_stores(&self) -> BTreeMap<String, Arc<dyn StateStore>> {
        self.stores.clone()
    }

    /// As it is in Dapr, an etag that was never issued is to PostgreSQL like any other that does not fit.
    pub(crate) fn refusal_of_malformed_etags(&self) -> ErrorClass {
        match self.kind {
            StoreKind::Postgresql => ErrorClass::EtagMismatch,
            StoreKind::InMemory | StoreKind::Sqlite | StoreKind::Redis => ErrorClass::EtagInvalid,
        }
    }

    /// Dapr on the same server or file.
    pub(crate) async fn dapr(&self) -> anyhow::Result<Dapr<'_>> {
        match (self.kind, &self.redis, &self.postgresql) {
            (StoreKind::Sqlite, _, _) => Dapr::on_sqlite(&self.folder.path().join(DATABASE)),
            (_, Some(server), _) => Ok(Dapr::on_redis(server)),
            (_, _, Some(Tables { server, prefix })) => Dapr::on_postgresql(&server.connection_string(), prefix).await,
            (kind, None, None) => anyhow::bail!("{} is for one process", kind.name()),
        }
    }

    /// The server behind a store that has one.
    pub(crate) fn redis(&mut self) -> anyhow::Result<&mut RedisServer> {
        self.redis.as_mut().ok_or_else(|| anyhow::anyhow!("no store on a Redis server"))
    }
}
