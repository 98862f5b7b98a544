//! A row for each key.

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

use super::{Stored, Write};

/// `{}` is the prefix of the tables. Of two that create one table at the same time, one may be told that it is there.
const TABLES: &str = "
    DO $$ BEGIN
        CREATE TABLE IF NOT EXISTS dapr_metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
    EXCEPTION WHEN unique_violation OR duplicate_object OR duplicate_table THEN NULL;
    END $$;
    CREATE TABLE IF NOT EXISTS {}state (
        key text NOT NULL PRIMARY KEY,
        value bytea NOT NULL,
        etag uuid NOT NULL DEFAULT gen_random_uuid(),
        created_at timestamp with time zone NOT NULL DEFAULT now(),
        updated_at timestamp with time zone,
        expires_at timestamp with time zone
    );
    INSERT INTO dapr_metadata (key, value) VALUES ('migrations-state-v2-{}', '1')
    ON CONFLICT (key) DO UPDATE SET value = '1'";
const UPSERT: &str = "
    INSERT INTO {}state AS t (key, value, etag, expires_at)
    VALUES ($1, $2, gen_random_uuid(), now() + $3::float8 * interval '1 second')
    ON CONFLICT (key) DO UPDATE SET
        value = excluded.value, updated_at = now(), etag = excluded.etag, expires_at = excluded.expires_at";
const INSERT: &str = "
    INSERT INTO {}state (key, value, etag, expires_at)
    VALUES ($1, $2, gen_random_uuid(), now() + $3::float8 * interval '1 second')
    ON CONFLICT (key) DO NOTHING";
const UPDATE: &str = "
    UPDATE {}state SET value = $2, updated_at = now(), etag = gen_random_uuid(),
        expires_at = now() + $3::float8 * interval '1 second'
    WHERE key = $1 AND etag = $4::text::uuid AND (expires_at IS NULL OR expires_at >= now())";
const SELECT: &str = "
    SELECT value, etag::text FROM {}state WHERE key = $1 AND (expires_at IS NULL OR expires_at >= now())";

pub(crate) struct Postgresql {
    client: Client,
    prefix: String,
}

impl Postgresql {
    /// Creates the tables where there are none.
    pub(super) async fn connect(connection_string: &str, prefix: &str) -> anyhow::Result<Self> {
        let (client, connection) = tokio_postgres::connect(connection_string, NoTls).await?;
        tokio::spawn(connection);
        let dapr = Self { client, prefix: prefix.to_owned() };
        dapr.client.batch_execute(&dapr.named(TABLES)).await?;
        Ok(dapr)
    }

    fn named(&self, statement: &str) -> String {
        statement.replace("{}", &self.prefix)
    }

    async fn execute(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> anyhow::Result<bool> {
        Ok(self.client.execute(&self.named(statement), parameters).await? > 0)
    }

    pub(super) async fn set(&self, key: &str, write: Write<'_>) -> anyhow::Result<bool> {
        let seconds = write.seconds.map(f64::from);
        match (write.etag, write.first_write) {
            (Some(etag), _) => self.execute(UPDATE, &[&key, &write.value, &seconds, &etag]).await,
            (None, true) => self.execute(INSERT, &[&key, &write.value, &seconds]).await,
            (None, false) => self.execute(UPSERT, &[&key, &write.value, &seconds]).await,
        }
    }

    pub(super) async fn get(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        let row = self.client.query_opt(&self.named(SELECT), &[&key]).await?;
        Ok(row.map(|row| Stored { value: row.get(0), etag: row.get(1) }))
    }

    pub(super) async fn delete(&self, key: &str, etag: Option<&str>) -> anyhow::Result<bool> {
        match etag {
            None => self.execute("DELETE FROM {}state WHERE key = $1", &[&key]).await.map(|_| true),
            Some(etag) => {
                self.execute("DELETE FROM {}state WHERE key = $1 AND etag = $2::text::uuid", &[&key, &etag]).await
            }
        }
    }
}
