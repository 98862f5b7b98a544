//! `state.postgresql`: Dapr's tables and statements, and calls that get in each other's way.
#![cfg(feature = "postgresql")]

mod outages;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::sync::Arc;
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{Concurrency, DeleteRequest, GetResponse, Operation, SetRequest, StateStore, WriteOptions};
use support::{delete_request, get, set_request, ttl};
use testbed::postgresql::{PASSWORD, PostgresqlServer, Setup, USER};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

type Store = Arc<dyn StateStore>;

const DEADLINE: Duration = Duration::from_secs(20);

/// Tables of a test's own, on a server that tests share.
struct Tables {
    server: Arc<PostgresqlServer>,
    prefix: String,
}

impl Tables {
    fn new() -> Self {
        let server = PostgresqlServer::shared();
        let prefix = server.unused_prefix();
        Self { server, prefix }
    }

    fn store(&self, more: &[(&str, &str)]) -> Store {
        let address = format!("{} application_name={}", self.server.connection_string(), self.prefix);
        let own = [("connectionString", address.as_str()), ("tablePrefix", &self.prefix)];
        store(&[&own[..], more].concat())
    }

    /// As any other program reads the tables; `{}` stands for the prefix.
    async fn sql(&self, text: &str) -> Vec<Vec<Option<String>>> {
        sql(&connect(&self.server).await, &text.replace("{}", &self.prefix)).await
    }

    /// The connections of this test's stores.
    async fn sessions(&self) -> usize {
        self.sql("SELECT pid FROM pg_stat_activity WHERE application_name = '{}'").await.len()
    }

    async fn break_sessions(&self) {
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'").await;
    }

    /// A transaction that holds the row of a key, until its `COMMIT`.
    async fn lock(&self, key: &str) -> Client {
        let client = connect(&self.server).await;
        sql(&client, &format!("BEGIN; SELECT 1 FROM {}state WHERE key = '{key}' FOR UPDATE", self.prefix)).await;
        client
    }

    /// Whether so many of them wait for a lock.
    async fn waiting(&self, count: usize) {
        let waiting = "SELECT pid FROM pg_stat_activity WHERE application_name = '{}' AND wait_event_type = 'Lock'";
        until(async || self.sql(waiting).await.len() == count).await;
    }
}

fn store(metadata: &[(&str, &str)]) -> Store {
    support::store("state.postgresql v2", metadata)
}

fn store_on(server: &PostgresqlServer, more: &[(&str, &str)]) -> Store {
    let address = server.connection_string();
    store(&[&[("connectionString", address.as_str())][..], more].concat())
}

async fn connect(server: &PostgresqlServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.connection_string(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn sql(client: &Client, text: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(text).await.unwrap();
    let rows = messages.iter().filter_map(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()).collect()
}

async fn until(question: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !question().await {
        assert!(Instant::now() < deadline, "it does not come to that");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn class<T>(result: Result<T, Error>) -> Option<ErrorClass> {
    result.err().map(|error| error.class)
}

fn with_etag(etag: &str, request: SetRequest) -> SetRequest {
    SetRequest { etag: Some(etag.to_owned()), ..request }
}

fn first_write(request: SetRequest) -> SetRequest {
    SetRequest { options: WriteOptions { concurrency: Concurrency::FirstWrite, ..request.options }, ..request }
}

fn upsert(key: &str, value: &str) -> Operation {
    Operation::Upsert(set_request(key, value))
}

/// Statements of Dapr's store, with the table's name and the time to live that it writes into them.
mod dapr {
    /// Of two that create one table at the same time, one may be told that it is there.
    pub(super) const TABLES: &str = "
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
        CREATE INDEX ON {}state (expires_at);
        INSERT INTO dapr_metadata (key, value) VALUES ('migrations-state-v2-{}', '1')
          ON CONFLICT (key) DO UPDATE SET value = '1'";
    pub(super) const SET: &str = "
        INSERT INTO {}state AS t (key, value, etag, expires_at)
        VALUES ('z', 'by Dapr', gen_random_uuid(), now() + interval '1000 seconds')
        ON CONFLICT (key) DO UPDATE SET
          value = 'by Dapr', updated_at = now(), etag = gen_random_uuid(), expires_at = now() + interval '1000 seconds'";
    pub(super) const GET: &str = "
        SELECT encode(value, 'escape'), etag, expires_at FROM {}state
        WHERE key = 'z' AND (expires_at IS NULL OR expires_at >= now())";
}

#[tokio::test]
async fn a_value_is_a_row_of_daprs_table() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.set(set_request("z", b"\0\xff")).await.unwrap();
    let row = "SELECT encode(value, 'hex'), etag, updated_at IS NULL, expires_at FROM {}state WHERE key = 'z'";
    let etag = get(&*store, "z").await.etag;
    assert_eq!(tables.sql(row).await, [[Some("00ff".into()), etag.clone(), Some("t".into()), None]]);
    store.set(set_request("z", "")).await.unwrap();
    let rows = tables.sql(row).await;
    assert!(rows[0][0].as_deref() == Some("") && rows[0][1] != etag && rows[0][2].as_deref() == Some("f"), "{rows:?}");
}

#[tokio::test]
async fn the_tables_are_daprs() {
    let tables = Tables::new();
    let daprs = Tables { server: Arc::clone(&tables.server), prefix: tables.server.unused_prefix() };
    tables.store(&[]).set(set_request("z", "value")).await.unwrap();
    daprs.sql(dapr::TABLES).await;
    let columns = "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns
                   WHERE table_name = '{}state' ORDER BY ordinal_position";
    let (ours, theirs) = (tables.sql(columns).await, daprs.sql(columns).await);
    assert_eq!((ours.len(), &ours), (6, &theirs));
    let indexes = "SELECT replace(indexdef, '{}', '') FROM pg_indexes WHERE tablename = '{}state' ORDER BY 1";
    let (ours, theirs) = (tables.sql(indexes).await, daprs.sql(indexes).await);
    assert_eq!((ours.len(), &ours), (2, &theirs));
    let metadata = tables.sql("SELECT key, value FROM dapr_metadata WHERE key IN ('lock', 'migrations-state-v2-{}')");
    let rows = [("lock", "lock"), (&*format!("migrations-state-v2-{}", tables.prefix), "1")];
    assert_eq!(metadata.await, rows.map(|(key, value)| [Some(key.to_owned()), Some(value.to_owned())]));
}

#[tokio::test]
async fn what_dapr_wrote_is_read_and_written_on() {
    let tables = Tables::new();
    tables.sql(dapr::TABLES).await;
    tables.sql(dapr::SET).await;
    let store = tables.store(&[]);
    let item = get(&*store, "z").await;
    assert_eq!(item.data, "by Dapr");
    assert_eq!(tables.sql(dapr::GET).await[0][1], item.etag);
    assert_eq!(item.metadata.unwrap()[0].0, "ttlExpireTime");
    store.set(with_etag(&item.etag.unwrap(), set_request("z", "by a guest"))).await.unwrap();
    let etag = get(&*store, "z").await.etag;
    assert_eq!(tables.sql(dapr::GET).await, [[Some("by a guest".into()), etag, None]]);
    assert_eq!(
        tables.sql("SELECT 1 FROM pg_indexes WHERE tablename = '{}state'").await.len(),
        2,
        "no table is made anew"
    );
}

#[tokio::test]
async fn hosts_that_start_at_once_create_the_tables_once() {
    let tables = Tables::new();
    let metadata = format!("{}metadata", tables.prefix);
    let mut hosts = JoinSet::new();
    for host in 0..12 {
        let store = tables.store(&[("metadataTableName", &metadata), ("maxConns", "1")]);
        hosts.spawn(async move { store.set(set_request(&host.to_string(), "value")).await });
    }
    for result in hosts.join_all().await {
        result.unwrap();
    }
    assert_eq!(tables.sql("SELECT key FROM {}state").await.len(), 12);
    assert_eq!(tables.sql("SELECT 1 FROM pg_indexes WHERE tablename = '{}state'").await.len(), 2);
}

#[tokio::test]
async fn a_migration_of_daprs_is_waited_for() {
    let tables = Tables::new();
    let metadata = format!("{}metadata", tables.prefix);
    tables.sql("CREATE TABLE {}metadata (key text NOT NULL PRIMARY KEY, value text NOT NULL)").await;
    tables.sql("INSERT INTO {}metadata VALUES ('lock', 'lock')").await;
    let dapr = connect(&tables.server).await;
    sql(&dapr, &format!("BEGIN; SELECT value FROM {metadata} WHERE key = 'lock' FOR UPDATE")).await;
    let store = tables.store(&[("metadataTableName", &metadata)]);
    let write = tokio::spawn(async move { store.set(set_request("z", "value")).await });
    tables.waiting(1).await;
    tables.sql(&dapr::TABLES.replace("dapr_metadata", &metadata)).await;
    sql(&dapr, "ROLLBACK").await;
    write.await.unwrap().unwrap();
    assert_eq!(tables.sql("SELECT 1 FROM pg_indexes WHERE tablename = '{}state'").await.len(), 2);
}

#[tokio::test]
async fn a_metadata_table_that_makes_no_sense_is_told() {
    let tables = Tables::new();
    tables.sql(dapr::TABLES).await;
    tables.sql("UPDATE dapr_metadata SET value = 'many' WHERE key = 'migrations-state-v2-{}'").await;
    let error = tables.store(&[]).set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Internal);
    assert!(error.message.contains("dapr_metadata has \"many\""), "{error}");
}

/// Dapr's version v1 of the component has a table of the same name.
#[tokio::test]
async fn a_table_of_another_layout_is_told_and_left_alone() {
    let tables = Tables::new();
    tables.sql("CREATE TABLE {}state (key text PRIMARY KEY, value jsonb NOT NULL, isbinary boolean NOT NULL)").await;
    let error = tables.store(&[]).set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Internal);
    assert!(error.message.contains("choose another `tablePrefix`"), "{error}");
    assert_eq!(tables.sql("SELECT 1 FROM pg_indexes WHERE tablename = '{}state'").await.len(), 1);
}

#[tokio::test]
async fn tables_may_lie_in_a_schema() {
    let tables = Tables::new();
    tables.sql("CREATE SCHEMA {}apps").await;
    let (prefix, metadata) = (format!("{}apps.My_", tables.prefix), format!("{}apps.meta", tables.prefix));
    let store = tables.store(&[("tablePrefix", &prefix), ("metadataTableName", &metadata)]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(tables.sql("SELECT encode(value, 'escape') FROM {}apps.my_state").await, [[Some("value".into())]]);
    assert_eq!(tables.sql("SELECT 1 FROM {}apps.meta WHERE key = 'migrations-state-v2-{}apps.My_'").await.len(), 1);
}

#[tokio::test]
async fn whoever_may_not_create_tables_can_use_those_that_are_there() {
    let tables = Tables::new();
    tables.store(&[]).set(set_request("z", "value")).await.unwrap();
    tables.sql("CREATE ROLE {}user LOGIN").await;
    let store = tables.store(&[("user", &format!("{}user", tables.prefix))]);
    let error = store.set(set_request("z", "late")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::PermissionDenied);
    assert!(error.message.contains("permission denied for table dapr_metadata (42501)"), "{error}");
    tables.sql("GRANT SELECT ON dapr_metadata TO {}user").await;
    tables.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON {}state TO {}user").await;
    store.set(set_request("z", "in time")).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "in time");
    tables.sql("DROP OWNED BY {}user; DROP ROLE {}user").await;
}

#[tokio::test]
async fn a_set_with_an_etag_does_not_create_a_missing_key() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    let etag = "8bb1bd3f-36f6-4a7b-9d0f-6a4e0f6a7f3e";
    let refused = store.set(with_etag(etag, set_request("z", "value"))).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    let refused = store.delete(DeleteRequest { etag: Some(etag.into()), ..delete_request("z") }).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
}

#[tokio::test]
async fn a_first_write_on_an_existing_key_is_an_etag_mismatch() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.set(set_request("z", "one")).await.unwrap();
    let refused = store.set(first_write(set_request("z", "two"))).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
}

#[tokio::test]
async fn the_expiry_is_told_and_cleared_by_a_set_without_one() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.set(SetRequest { metadata: ttl("1000"), ..set_request("z", "one") }).await.unwrap();
    let stored = "SELECT to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM {}state";
    let stored = tables.sql(stored).await[0][0].clone().unwrap();
    assert_eq!(get(&*store, "z").await.metadata, Some(vec![("ttlExpireTime".to_owned(), stored)]));
    store.set(set_request("z", "two")).await.unwrap();
    assert_eq!(get(&*store, "z").await.metadata, None);
}

#[tokio::test]
async fn an_expired_row_can_be_deleted_by_its_etag_but_not_set() {
    let tables = Tables::new();
    let store = tables.store(&[("cleanupInterval", "0")]);
    store.set(set_request("z", "value")).await.unwrap();
    let etag = get(&*store, "z").await.etag.unwrap();
    tables.sql("UPDATE {}state SET expires_at = now() - interval '1 second'").await;
    let refused = store.set(with_etag(&etag, set_request("z", "late"))).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    store.delete(DeleteRequest { etag: Some(etag), ..delete_request("z") }).await.unwrap();
    assert!(tables.sql("SELECT 1 FROM {}state").await.is_empty());
}

#[tokio::test]
async fn expired_rows_are_removed_by_one_host_at_a_time() {
    let (busy, idle) = (Tables::new(), Tables::new());
    for tables in [&idle, &busy] {
        let store = tables.store(&[]);
        store.set(SetRequest { metadata: ttl("1000"), ..set_request("long", "value") }).await.unwrap();
        store.set(SetRequest { metadata: ttl("1000"), ..set_request("short", "value") }).await.unwrap();
        tables.sql("UPDATE {}state SET expires_at = now() - interval '1 second' WHERE key = 'short'").await;
    }
    // Another host was there just now, by a clock that is ahead.
    let claim = "INSERT INTO dapr_metadata VALUES ('last-cleanup-state-v2-{}', (now() + interval '1 hour')::text)";
    idle.sql(claim).await;
    let hosts = [&idle, &busy].map(|tables| tables.store(&[("cleanupInterval", "1s")]));
    for store in &hosts {
        get(&**store, "long").await;
    }
    let keys = "SELECT key FROM {}state ORDER BY key";
    until(async || busy.sql(keys).await == [[Some("long".to_owned())]]).await;
    assert_eq!(busy.sql("SELECT 1 FROM dapr_metadata WHERE key = 'last-cleanup-state-v2-{}'").await.len(), 1);
    // A second round, so that the first one of the other host is over for certain.
    busy.sql("UPDATE {}state SET expires_at = now() - interval '1 second'").await;
    until(async || busy.sql(keys).await.is_empty()).await;
    assert_eq!(idle.sql(keys).await.len(), 2);
}

#[tokio::test]
async fn no_update_is_lost_among_the_writers_of_two_hosts() {
    const UPDATES: usize = 10;
    let tables = Tables::new();
    let hosts = [tables.store(&[]), tables.store(&[("queryExecMode", "exec")])];
    hosts[0].set(set_request("z", "0")).await.unwrap();
    let mut writers = JoinSet::new();
    for writer in 0..6 {
        let store = Arc::clone(&hosts[writer % 2]);
        writers.spawn(async move {
            let mut done = 0;
            while done < UPDATES {
                let current = get(&*store, "z").await;
                let count: usize = std::str::from_utf8(&current.data).unwrap().parse().unwrap();
                let next = with_etag(&current.etag.unwrap(), set_request("z", (count + 1).to_string()));
                match class(store.set(next).await) {
                    None => done += 1,
                    Some(class) => assert_eq!(class, ErrorClass::EtagMismatch),
                }
            }
        });
    }
    writers.join_all().await;
    assert_eq!(get(&*hosts[0], "z").await.data, (6 * UPDATES).to_string());
}

#[tokio::test]
async fn transactions_that_are_in_each_others_way_both_succeed() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.transact(["a", "gate", "b"].map(|key| upsert(key, "0")).to_vec()).await.unwrap();
    let gate = tables.lock("gate").await;
    let mut transactions = JoinSet::new();
    for (count, keys) in [(1, ["a", "gate", "b"]), (2, ["b", "gate", "a"])] {
        let store = Arc::clone(&store);
        transactions.spawn(async move { store.transact(keys.map(|key| upsert(key, "1")).to_vec()).await });
        tables.waiting(count).await;
    }
    // Each has its first row. Whoever passes the gate wants the other's, who wants to pass the gate.
    sql(&gate, "COMMIT").await;
    for result in transactions.join_all().await {
        result.unwrap();
    }
    assert!(tables.server.log().contains("deadlock detected"));
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_in_time_is_unavailable_and_nothing_is_written() {
    let tables = Tables::new();
    let address = format!("{} options='-c lock_timeout=100ms'", tables.server.connection_string());
    let store = tables.store(&[("connectionString", &address)]);
    store.transact(vec![upsert("free", "one"), upsert("held", "one")]).await.unwrap();
    let lock = tables.lock("held").await;
    let error = store.transact(vec![upsert("free", "two"), upsert("held", "two")]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    assert!(error.message.contains("55P03"), "{error}");
    sql(&lock, "COMMIT").await;
    assert_eq!(get(&*store, "free").await.data, "one");
    store.transact(vec![upsert("free", "two"), upsert("held", "two")]).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_is_given_up_holds_no_lock_and_writes_nothing() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.transact(vec![upsert("free", "one"), upsert("held", "one")]).await.unwrap();
    let lock = tables.lock("held").await;
    let given_up = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.transact(vec![upsert("free", "two"), upsert("held", "two")]).await }
    });
    tables.waiting(1).await;
    given_up.abort();
    tables.waiting(0).await;
    store.set(first_write(set_request("z", "value"))).await.unwrap();
    store.set(set_request("free", "three")).await.unwrap();
    sql(&lock, "COMMIT").await;
    assert_eq!(get(&*store, "held").await.data, "one");
    assert_eq!(get(&*store, "free").await.data, "three");
}

#[tokio::test]
async fn guests_share_the_connections_that_there_may_be() {
    let tables = Tables::new();
    let store = tables.store(&[("maxConns", "3")]);
    let mut guests = JoinSet::new();
    for guest in 0..50 {
        let store = Arc::clone(&store);
        guests.spawn(async move {
            let key = guest.to_string();
            store.set(set_request(&key, &key)).await.unwrap();
            assert_eq!(get(&*store, &key).await.data, key);
        });
    }
    guests.join_all().await;
    assert_eq!(tables.sessions().await, 3);
    drop(store);
    until(async || tables.sessions().await == 0).await;
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let tables = Tables::new();
    let store = tables.store(&[("connectionMaxIdleTime", "1s"), ("cleanupInterval", "0")]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(tables.sessions().await, 1);
    until(async || tables.sessions().await == 0).await;
    assert_eq!(get(&*store, "z").await.data, "value");
}

#[tokio::test]
async fn a_key_that_postgresql_cannot_hold_is_an_invalid_argument() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    let long: String = (0..20_000_u64).map(|n| (n * n * 2_654_435_761 % 1_000_003).to_string()).collect();
    for key in ["zero\0byte", &long] {
        let refused = store.set(set_request(key, "value")).await;
        assert_eq!(class(refused), Some(ErrorClass::InvalidArgument));
    }
}

#[tokio::test]
async fn an_error_of_the_server_is_told_without_the_connection_string() {
    let tables = Tables::new();
    let store = tables.store(&[("password", PASSWORD)]);
    store.set(set_request("z", "value")).await.unwrap();
    tables.sql("DROP TABLE {}state").await;
    let error = store.set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Internal);
    let expected = format!("relation \"{}state\" does not exist (42P01)", tables.prefix);
    assert!(error.message.ends_with(&expected) && !error.message.contains(PASSWORD), "{error}");
}

#[tokio::test]
async fn statements_are_prepared_unless_the_mode_says_otherwise() {
    let server = PostgresqlServer::start_with(&Setup { settings: &[("log_statement", "all")], ..Setup::default() });
    for (mode, marks) in [("exec", [true, false]), ("cache_statement", [false, true])] {
        let before = server.log().len();
        let store = store_on(&server, &[("queryExecMode", mode)]);
        store.set(set_request("z", "value")).await.unwrap();
        store.transact(vec![upsert("z", "one"), Operation::Delete(delete_request("z"))]).await.unwrap();
        assert_eq!(get(&*store, "z").await, GetResponse::default());
        let log = server.log().split_off(before);
        let seen = ["execute <unnamed>: INSERT INTO state", "execute s"].map(|mark| log.contains(mark));
        assert_eq!(seen, marks, "{mode}: {log}");
    }
}

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let access = Some("host all kerberos 127.0.0.1/32 gss\nhost all all 127.0.0.1/32 scram-sha-256\n");
    let server = PostgresqlServer::start_with(&Setup { access, ..Setup::default() });
    let url = format!("postgres://{USER}:{PASSWORD}@{}/postgres", server.host());
    store(&[("url", &url)]).set(set_request("z", "value")).await.unwrap();
    store_on(&server, &[("password", PASSWORD)]).set(set_request("z", "value")).await.unwrap();
    for wrong in [&[("password", "hunter3")][..], &[("user", "kerberos")], &[]] {
        let error = store_on(&server, wrong).set(set_request("z", "value")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::PermissionDenied, "{error}");
        assert!(!error.message.contains("hunter"), "{error}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_used_whatever_is_said_of_tls() {
    let server = PostgresqlServer::start();
    let folder = server.socket_folder().to_str().unwrap();
    let address = format!("host={folder} port={} user={USER} dbname=postgres sslmode=verify-full", server.port());
    let store = store(&[("connectionString", &address)]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "value");
}
