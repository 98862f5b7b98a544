//! The tables of Dapr's store, and the statements on them.
//!
//! Source: dapr/components-contrib `state/sqlite/sqlite_migrations.go` (the state table, migration 1),
//! `common/component/sql/migrations/sqlite/sqlite_migrations.go` (the metadata table, which holds the number of
//! migrations done under the key `migrations`) and `state/sqlite/sqlite_dbaccess.go`.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

/// A row that has not expired.
const ALIVE: &str = "(expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)";
/// Null where `:seconds` is.
const EXPIRY: &str = "DATETIME(CURRENT_TIMESTAMP, '+' || :seconds || ' seconds')";

pub(super) struct Statements {
    /// `value`, `is_binary`, `etag` and, by RFC 3339, `expires` of a key.
    pub(super) select: String,
    /// Writes `:key`, `:value`, `:etag` and `:seconds`, whatever is there.
    pub(super) upsert: String,
    /// The same, unless the key exists.
    pub(super) insert: String,
    /// The same, if the key exists with the etag `:expected`.
    pub(super) update: String,
    pub(super) delete: String,
    pub(super) delete_version: String,
    delete_expired: String,
    /// Changes a row only if the last cleanup is more than so many milliseconds ago.
    claim_cleanup: String,
    create_metadata: String,
    create_state: String,
    migrations: String,
    set_migrations: String,
}

impl Statements {
    /// The names must be identifiers: they become part of the statements.
    pub(super) fn new(table: &str, metadata: &str) -> Self {
        let upsert = format!(
            "INSERT INTO {table} (key, value, is_binary, etag, expiration_time, update_time)
             VALUES (:key, :value, 1, :etag, {EXPIRY}, CURRENT_TIMESTAMP)
             ON CONFLICT (key) DO UPDATE SET
                 value = excluded.value, is_binary = excluded.is_binary, etag = excluded.etag,
                 expiration_time = excluded.expiration_time, update_time = excluded.update_time"
        );
        Self {
            select: format!(
                "SELECT value, is_binary, etag, STRFTIME('%Y-%m-%dT%H:%M:%SZ', expiration_time) AS expires
                 FROM {table} WHERE key = ?1 AND {ALIVE}"
            ),
            insert: format!("{upsert} WHERE {table}.expiration_time <= CURRENT_TIMESTAMP"),
            upsert,
            update: format!(
                "UPDATE {table} SET value = :value, is_binary = 1, etag = :etag,
                     expiration_time = {EXPIRY}, update_time = CURRENT_TIMESTAMP
                 WHERE key = :key AND etag = :expected AND {ALIVE}"
            ),
            delete: format!("DELETE FROM {table} WHERE key = ?1"),
            delete_version: format!("DELETE FROM {table} WHERE key = ?1 AND etag = ?2 AND {ALIVE}"),
            delete_expired: format!("DELETE FROM {table} WHERE expiration_time < CURRENT_TIMESTAMP"),
            claim_cleanup: format!(
                "INSERT INTO {metadata} (key, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP)
                 ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP
                 WHERE (UNIXEPOCH(CURRENT_TIMESTAMP) - UNIXEPOCH(value)) * 1000 > ?1"
            ),
            create_metadata: format!(
                "CREATE TABLE IF NOT EXISTS {metadata} (
                     key text NOT NULL PRIMARY KEY,
                     value text NOT NULL
                 )"
            ),
            create_state: format!(
                "CREATE TABLE IF NOT EXISTS {table} (
                     key TEXT NOT NULL PRIMARY KEY,
                     value TEXT NOT NULL,
                     is_binary BOOLEAN NOT NULL,
                     etag TEXT NOT NULL,
                     expiration_time TIMESTAMP DEFAULT NULL,
                     update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
                 )"
            ),
            migrations: format!("SELECT value FROM {metadata} WHERE key = 'migrations'"),
            set_migrations: format!("REPLACE INTO {metadata} (key, value) VALUES ('migrations', ?1)"),
        }
    }

    /// Creates what is not there yet. Other processes may do the same at the same time.
    pub(super) fn migrate(&self, database: &mut Connection) -> rusqlite::Result<()> {
        let transaction = database.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        transaction.execute(&self.create_metadata, [])?;
        if !self.is_migrated(&transaction)? {
            transaction.execute(&self.create_state, [])?;
            transaction.execute(&self.set_migrations, ["1"])?;
        }
        transaction.commit()
    }

    fn is_migrated(&self, transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
        let level: Option<String> = transaction.query_row(&self.migrations, [], |row| row.get(0)).optional()?;
        Ok(level.is_some_and(|level| level != "0"))
    }

    /// Removes what expired, unless this or another process did so less than `milliseconds` ago.
    pub(super) fn clean_up(&self, database: &Connection, milliseconds: i64) -> rusqlite::Result<()> {
        if database.execute(&self.claim_cleanup, [milliseconds])? > 0 {
            let removed = database.execute(&self.delete_expired, [])?;
            tracing::debug!(removed, "expired rows removed");
        }
        Ok(())
    }
}
