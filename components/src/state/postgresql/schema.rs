//! The tables of Dapr's store, and the statements on them.
//!
//! Source: dapr/components-contrib `state/postgresql/v2/postgresql.go`,
//! `common/component/sql/migrations/postgres/postgres_migrations.go` and `common/component/sql/cleanup.go`.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::failure::Failure;

/// A row that has not expired.
const ALIVE: &str = "(expires_at IS NULL OR expires_at >= now())";
/// Null where `$3`, seconds, is.
const EXPIRY: &str = "now() + $3 * interval '1 second'";
/// How often, and after which pause, a table is created that others create at the same time: Dapr's.
const ATTEMPTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(50);
/// What the server says to the slower of two that create a table at the same time, by how far it got.
const CREATED_MEANWHILE: [SqlState; 3] =
    [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE];

pub(super) struct Statements {
    /// Whether each connection prepares them when it first sends them.
    pub(super) prepared: bool,
    /// `value`, `etag` and `expires_at` of the key `$1`.
    pub(super) select: String,
    /// Writes the key `$1` and the value `$2`, to expire after `$3` seconds, whatever is there.
    pub(super) upsert: String,
    /// The same, unless the key exists.
    pub(super) insert: String,
    /// The same, if the key exists with the etag `$4`.
    pub(super) update: String,
    pub(super) delete: String,
    /// With an etag, `$2`. As in Dapr, what expired has one as long as it is there.
    pub(super) delete_version: String,
    delete_expired: String,
    /// Changes a row only if the last cleanup is more than `$1` milliseconds ago.
    claim_cleanup: String,
    create_metadata: String,
    create_lock: String,
    lock: String,
    level: String,
    set_level: String,
    create_state: String,
    table: String,
    metadata: String,
}

impl Statements {
    /// `prefix` and `metadata` must be parts of identifiers: they become part of the statements.
    pub(super) fn new(prefix: &str, metadata: &str, prepared: bool) -> Self {
        let table = format!("{prefix}state");
        let migrations = format!("migrations-state-v2-{prefix}");
        let cleanup = format!("last-cleanup-state-v2-{prefix}");
        let upsert = format!(
            "INSERT INTO {table} AS t (key, value, etag, expires_at) VALUES ($1, $2, gen_random_uuid(), {EXPIRY})
             ON CONFLICT (key) DO UPDATE SET
                 value = excluded.value, updated_at = now(), etag = excluded.etag, expires_at = excluded.expires_at"
        );
        Self {
            prepared,
            select: format!("SELECT value, etag, expires_at FROM {table} WHERE key = $1 AND {ALIVE}"),
            insert: format!("{upsert} WHERE t.expires_at < now()"),
            upsert,
            update: format!(
                "UPDATE {table} SET value = $2, updated_at = now(), etag = gen_random_uuid(), expires_at = {EXPIRY}
                 WHERE key = $1 AND etag = $4 AND {ALIVE}"
            ),
            delete: format!("DELETE FROM {table} WHERE key = $1"),
            delete_version: format!("DELETE FROM {table} WHERE key = $1 AND etag = $2"),
            delete_expired: format!("DELETE FROM {table} WHERE expires_at < now()"),
            claim_cleanup: format!(
                "INSERT INTO {metadata} AS m (key, value) VALUES ('{cleanup}', now()::text)
                 ON CONFLICT (key) DO UPDATE SET value = now()::text
                 WHERE (EXTRACT('epoch' FROM now() - m.value::timestamp with time zone) * 1000)::bigint > $1"
            ),
            create_metadata: format!(
                "CREATE TABLE IF NOT EXISTS {metadata} (
                     key text NOT NULL PRIMARY KEY,
                     value text NOT NULL
                 )"
            ),
            create_lock: format!(
                "INSERT INTO {metadata} (key, value) VALUES ('lock', 'lock') ON CONFLICT (key) DO NOTHING"
            ),
            lock: format!("SELECT value FROM {metadata} WHERE key = 'lock' FOR UPDATE"),
            level: format!("SELECT value FROM {metadata} WHERE key = '{migrations}'"),
            set_level: format!(
                "INSERT INTO {metadata} (key, value) VALUES ('{migrations}', '1')
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            ),
            create_state: format!(
                "CREATE TABLE IF NOT EXISTS {table} (
                     key text NOT NULL PRIMARY KEY,
                     value bytea NOT NULL,
                     etag uuid NOT NULL DEFAULT gen_random_uuid(),
                     created_at timestamp with time zone NOT NULL DEFAULT now(),
                     updated_at timestamp with time zone,
                     expires_at timestamp with time zone
                 );
                 CREATE INDEX ON {table} (expires_at)"
            ),
            table,
            metadata: metadata.to_owned(),
        }
    }

    /// Creates what is not there yet. Other processes, Dapr's too, may do the same at the same time: whoever holds
    /// the row `lock` goes first. Where all is there, no right to create anything is needed.
    pub(super) async fn migrate(&self, client: &mut ClientWrapper) -> Result<(), Failure> {
        match self.is_migrated(client).await {
            Ok(true) => return Ok(()),
            Err(Failure::Statement(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
                self.create_metadata(client).await?;
            }
            other => _ = other?,
        }
        client.batch_execute(&self.create_lock).await?;
        let transaction = client.transaction().await?;
        transaction.query_typed(&self.lock, &[]).await?;
        if !self.is_migrated(transaction.client()).await? {
            transaction.batch_execute(&self.create_state).await.map_err(|error| self.not_created(error))?;
            transaction.batch_execute(&self.set_level).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The index is of a column that the table of version 1 does not have.
    fn not_created(&self, error: Error) -> Failure {
        if error.code() != Some(&SqlState::UNDEFINED_COLUMN) {
            return error.into();
        }
        Failure::Unexpected(format!(
            "the table {} has other columns, perhaps those of version v1 of this component: choose another `tablePrefix`",
            self.table
        ))
    }

    async fn is_migrated(&self, client: &Client) -> Result<bool, Failure> {
        let Some(row) = client.query_typed_opt(&self.level, &[]).await? else { return Ok(false) };
        let level: String = row.try_get(0)?;
        let unknown = || Failure::Unexpected(format!("{} has {level:?} for the number of migrations", self.metadata));
        Ok(level.parse::<u32>().map_err(|_| unknown())? > 0)
    }

    /// Even with `IF NOT EXISTS`, one of two that create a table at the same time may fail.
    async fn create_metadata(&self, client: &Client) -> Result<(), Error> {
        for _ in 1..ATTEMPTS {
            match client.batch_execute(&self.create_metadata).await {
                Err(error) if error.code().is_some_and(|code| CREATED_MEANWHILE.contains(code)) => {
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
        client.batch_execute(&self.create_metadata).await
    }

    /// Removes what expired, unless this or another process did so less than `milliseconds` ago.
    pub(super) async fn clean_up(&self, client: &Client, milliseconds: i64) -> Result<(), Error> {
        if client.execute_typed(&self.claim_cleanup, &[(&milliseconds, Type::INT8)]).await? > 0 {
            let removed = client.execute_typed(&self.delete_expired, &[]).await?;
            tracing::debug!(removed, "expired rows removed");
        }
        Ok(())
    }
}
