//! `state.sqlite`: Dapr's tables, files that come late, and databases that others hold.
#![cfg(feature = "sqlite")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{Concurrency, DeleteRequest, GetRequest, GetResponse, SetRequest, StateStore, WriteOptions};
use rusqlite::{Connection, params};
use support::{delete_request, get, set_request, store, ttl};
use tempfile::TempDir;

struct File {
    folder: TempDir,
}

impl File {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }

    fn store(&self, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
        store_at(&self.path(), more)
    }

    /// As any other program reads the file.
    fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).unwrap();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection
    }
}

fn store_at(path: &Path, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let connection = [("connectionString", path.to_str().unwrap())];
    let metadata: Vec<(&str, &str)> = connection.iter().chain(more).copied().collect();
    store("state.sqlite", &metadata)
}

fn class<T>(result: Result<T, Error>) -> Option<ErrorClass> {
    result.err().map(|error| error.class)
}

#[tokio::test]
async fn a_value_is_a_row_of_daprs_table() {
    let file = File::new();
    let store = file.store(&[]);
    store.set(set_request("z", "value")).await.unwrap();
    let etag = get(&*store, "z").await.etag.unwrap();
    let row: (String, i64, String, Option<String>, String) = file
        .open()
        .query_row(
            "SELECT value, is_binary, etag, expiration_time, update_time FROM state WHERE key = 'z'",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
        )
        .unwrap();
    assert_eq!((row.0.as_str(), row.1, row.2, row.3), ("dmFsdWU=", 1, etag, None));
    assert_eq!(row.4.len(), "2026-08-21 09:30:00".len());
}

#[tokio::test]
async fn the_tables_are_daprs() {
    let file = File::new();
    file.store(&[]).set(set_request("z", "value")).await.unwrap();
    let database = file.open();
    let columns = |table: &str| -> Vec<String> {
        let mut query =
            database.prepare("SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info(?1)").unwrap();
        let rows = query.query_map([table], |row| {
            let (name, kind, not_null): (String, String, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (default, key): (Option<String>, bool) = (row.get(3)?, row.get(4)?);
            let not_null = if not_null { " NOT NULL" } else { "" };
            let default = default.map_or_else(String::new, |default| format!(" DEFAULT {default}"));
            Ok(format!("{name} {kind}{not_null}{default}{}", if key { " KEY" } else { "" }))
        });
        rows.unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(
        columns("state"),
        [
            "key TEXT NOT NULL KEY",
            "value TEXT NOT NULL",
            "is_binary BOOLEAN NOT NULL",
            "etag TEXT NOT NULL",
            "expiration_time TIMESTAMP DEFAULT NULL",
            "update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
        ]
    );
    assert_eq!(columns("metadata"), ["key TEXT NOT NULL KEY", "value TEXT NOT NULL"]);
    let migrations: String =
        database.query_row("SELECT value FROM metadata WHERE key = 'migrations'", [], |row| row.get(0)).unwrap();
    assert_eq!(migrations, "1");
    let journal: String = database.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");
}

#[tokio::test]
async fn what_dapr_wrote_is_read_and_written_on() {
    const ETAG: &str = "8bb1bd3f-36f6-4a7b-9d0f-6a4e0f6a7f3e";
    let file = File::new();
    let store = file.store(&[]);
    assert_eq!(get(&*store, "json").await, GetResponse::default());
    let insert = "INSERT INTO state (key, value, is_binary, etag, expiration_time) VALUES (?1, ?2, ?3, ?4, DATETIME(CURRENT_TIMESTAMP, ?5))";
    let database = file.open();
    database.execute(insert, params!["json", r#"{"a":1}"#, false, ETAG, None::<String>]).unwrap();
    database.execute(insert, params!["bytes", "AP8=", true, ETAG, "+1000 seconds"]).unwrap();
    database.execute(insert, params!["expired", "AP8=", true, ETAG, "-1 seconds"]).unwrap();
    let json = get(&*store, "json").await;
    assert_eq!((&*json.data, json.etag.as_deref(), json.metadata), (&br#"{"a":1}"#[..], Some(ETAG), None));
    assert_eq!(&*get(&*store, "bytes").await.data, b"\0\xff");
    assert_eq!(get(&*store, "expired").await, GetResponse::default());
    for key in ["json", "bytes"] {
        store.set(SetRequest { etag: Some(ETAG.into()), ..set_request(key, "by a guest") }).await.unwrap();
        assert_eq!(get(&*store, key).await.data, "by a guest");
    }
    let refused = store.set(SetRequest { etag: Some(ETAG.into()), ..set_request("expired", "late") }).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
}

#[tokio::test]
async fn a_migrated_file_of_a_newer_dapr_is_used_as_it_is() {
    let file = File::new();
    file.store(&[]).set(set_request("z", "value")).await.unwrap();
    file.open().execute("UPDATE metadata SET value = '9' WHERE key = 'migrations'", []).unwrap();
    assert_eq!(get(&*file.store(&[]), "z").await.data, "value");
    let level: String = file.open().query_row("SELECT value FROM metadata", [], |row| row.get(0)).unwrap();
    assert_eq!(level, "9");
}

#[tokio::test]
async fn values_outlive_the_store() {
    let file = File::new();
    file.store(&[]).set(set_request("z", "value")).await.unwrap();
    assert_eq!(get(&*file.store(&[]), "z").await.data, "value");
}

#[tokio::test]
async fn two_stores_share_a_file() {
    let file = File::new();
    let (one, other) = (file.store(&[]), file.store(&[]));
    for round in 0..20 {
        let (writer, reader) = if round % 2 == 0 { (&one, &other) } else { (&other, &one) };
        writer.set(set_request("z", round.to_string())).await.unwrap();
        assert_eq!(get(&**reader, "z").await.data, round.to_string());
    }
}

#[tokio::test]
async fn the_tables_may_have_other_names() {
    let file = File::new();
    let store = file.store(&[("tableName", "things"), ("metadataTableName", "about_things")]);
    store.set(set_request("z", "value")).await.unwrap();
    let count: i64 = file.open().query_row("SELECT COUNT(*) FROM things, about_things", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
}

#[tokio::test]
async fn a_set_with_an_etag_does_not_create_a_missing_key() {
    let file = File::new();
    let store = file.store(&[]);
    let etag = Some("8bb1bd3f-36f6-4a7b-9d0f-6a4e0f6a7f3e".to_owned());
    let refused = store.set(SetRequest { etag: etag.clone(), ..set_request("z", "value") }).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    let refused = store.delete(DeleteRequest { etag, ..delete_request("z") }).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
}

#[tokio::test]
async fn a_first_write_on_an_existing_key_is_an_etag_mismatch() {
    let file = File::new();
    let store = file.store(&[]);
    store.set(set_request("z", "one")).await.unwrap();
    let options = WriteOptions { concurrency: Concurrency::FirstWrite, ..WriteOptions::default() };
    let refused = store.set(SetRequest { options, ..set_request("z", "two") }).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
}

#[tokio::test]
async fn the_expiry_is_told_and_cleared_by_a_set_without_one() {
    let file = File::new();
    let store = file.store(&[]);
    store.set(SetRequest { metadata: ttl("1000"), ..set_request("z", "one") }).await.unwrap();
    let metadata = get(&*store, "z").await.metadata.unwrap();
    let stored: String = file.open().query_row("SELECT expiration_time FROM state", [], |row| row.get(0)).unwrap();
    assert_eq!(metadata, [("ttlExpireTime".to_owned(), format!("{}Z", stored.replace(' ', "T")))]);
    store.set(set_request("z", "two")).await.unwrap();
    assert_eq!(get(&*store, "z").await.metadata, None);
}

#[tokio::test]
async fn expired_rows_are_removed_from_the_file() {
    let file = File::new();
    let store = file.store(&[("cleanupInterval", "1s")]);
    store.set(SetRequest { metadata: ttl("1"), ..set_request("short", "value") }).await.unwrap();
    store.set(SetRequest { metadata: ttl("1000"), ..set_request("long", "value") }).await.unwrap();
    let keys = || -> Vec<String> {
        let database = file.open();
        let mut query = database.prepare("SELECT key FROM state ORDER BY key").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while keys() != ["long"] {
        assert!(Instant::now() < deadline, "{:?}", keys());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cleanups: i64 = file
        .open()
        .query_row("SELECT COUNT(*) FROM metadata WHERE key = 'last-cleanup'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(cleanups, 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_told_and_used_once_it_can() {
    let file = File::new();
    let folder = file.folder.path().join("not-yet");
    let store = store_at(&folder.join("state.db"), &[]);
    let error = store.set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.starts_with("component store: sqlite: ") && error.message.contains("not-yet"), "{error}");
    fs::create_dir(&folder).unwrap();
    store.set(set_request("z", "value")).await.unwrap();
}

#[tokio::test]
async fn a_store_that_is_never_called_creates_no_file() {
    let file = File::new();
    drop(file.store(&[]));
    assert!(!file.path().exists());
}

#[tokio::test]
async fn a_locked_database_holds_up_nobody_and_is_told() {
    let file = File::new();
    let store = file.store(&[("busyTimeout", "300ms")]);
    store.set(set_request("z", "value")).await.unwrap();
    let other = file.open();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One thread runs both: the second would wait for the first if that blocked.
    let asked = Instant::now();
    let (blocked, free) = tokio::join!(store.set(set_request("z", "late")), async {
        tokio::task::yield_now().await;
        asked.elapsed()
    });
    assert_eq!(class(blocked), Some(ErrorClass::Unavailable));
    assert!(free < Duration::from_millis(200) && asked.elapsed() >= Duration::from_millis(300));
    other.execute_batch("COMMIT").unwrap();
    store.set(set_request("z", "in time")).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "in time");
}

#[tokio::test]
async fn a_call_takes_no_longer_than_the_timeout() {
    let file = File::new();
    let store = file.store(&[("timeout", "1s"), ("busyTimeout", "3s")]);
    store.set(set_request("z", "value")).await.unwrap();
    let other = file.open();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let asked = Instant::now();
    assert_eq!(class(store.set(set_request("z", "late")).await), Some(ErrorClass::Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(2500), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_damaged_value_is_an_error() {
    let file = File::new();
    let store = file.store(&[]);
    store.set(set_request("z", "value")).await.unwrap();
    file.open().execute("UPDATE state SET value = '***'", []).unwrap();
    let read = store.get(GetRequest { key: "z".into(), ..GetRequest::default() }).await;
    assert_eq!(class(read), Some(ErrorClass::Internal));
}

#[tokio::test]
async fn a_database_in_memory_lasts_as_long_as_its_store() {
    let store = store("state.sqlite", &[("connectionString", ":memory:")]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "value");
}
