//! A row for each key: bytes are base64, what JSON can say is JSON.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::{Stored, Write};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL);
    CREATE TABLE IF NOT EXISTS state (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        is_binary BOOLEAN NOT NULL,
        etag TEXT NOT NULL,
        expiration_time TIMESTAMP DEFAULT NULL,
        update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
    REPLACE INTO metadata (key, value) VALUES ('migrations', '1')";
const UPSERT: &str = "
    INSERT OR REPLACE INTO state (key, value, is_binary, etag, update_time, expiration_time)
    VALUES (?1, ?2, ?3, ?4, CURRENT_TIMESTAMP, DATETIME(CURRENT_TIMESTAMP, '+' || ?5 || ' seconds'))";
const INSERT: &str = "
    INSERT INTO state (key, value, is_binary, etag, update_time, expiration_time)
    VALUES (?1, ?2, ?3, ?4, CURRENT_TIMESTAMP, DATETIME(CURRENT_TIMESTAMP, '+' || ?5 || ' seconds'))
    ON CONFLICT (key) DO NOTHING";
const UPDATE: &str = "
    UPDATE state SET value = ?2, is_binary = ?3, etag = ?4, update_time = CURRENT_TIMESTAMP,
        expiration_time = DATETIME(CURRENT_TIMESTAMP, '+' || ?5 || ' seconds')
    WHERE key = ?1 AND etag = ?6 AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)";
const SELECT: &str = "
    SELECT value, is_binary, etag FROM state
    WHERE key = ?1 AND (expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)";

pub(crate) struct Sqlite {
    database: Connection,
}

impl Sqlite {
    pub(super) fn open(file: &Path) -> anyhow::Result<Self> {
        let database = Connection::open(file)?;
        database.busy_timeout(Duration::from_secs(5))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.execute_batch(TABLES)?;
        Ok(Self { database })
    }

    pub(super) fn set(&self, key: &str, write: Write<'_>) -> anyhow::Result<bool> {
        self.write(key, &BASE64.encode(write.value), true, write)
    }

    /// What the application handed over as a value of JSON, and not as bytes.
    pub(crate) fn set_json(&self, key: &str, json: &str) -> anyhow::Result<()> {
        self.write(key, json, false, Write::default()).map(drop)
    }

    fn write(&self, key: &str, text: &str, is_binary: bool, write: Write<'_>) -> anyhow::Result<bool> {
        let new = Uuid::new_v4().to_string();
        let seconds = write.seconds;
        let written = match (write.etag, write.first_write) {
            (Some(etag), _) => self.database.execute(UPDATE, params![key, text, is_binary, new, seconds, etag]),
            (None, true) => self.database.execute(INSERT, params![key, text, is_binary, new, seconds]),
            (None, false) => self.database.execute(UPSERT, params![key, text, is_binary, new, seconds]),
        };
        Ok(written? > 0)
    }

    pub(super) fn get(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get(2)?));
        let row = self.database.query_row(SELECT, [key], read).optional()?;
        row.map(|(text, is_binary, etag)| {
            let value = if is_binary { BASE64.decode(text)? } else { text.into_bytes() };
            Ok(Stored { value, etag })
        })
        .transpose()
    }

    pub(super) fn delete(&self, key: &str, etag: Option<&str>) -> anyhow::Result<bool> {
        let deleted = match etag {
            None => return Ok(self.database.execute("DELETE FROM state WHERE key = ?1", [key]).map(|_| true)?),
            Some(etag) => self.database.execute("DELETE FROM state WHERE key = ?1 AND etag = ?2", [key, etag])?,
        };
        Ok(deleted > 0)
    }
}
