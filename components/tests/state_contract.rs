//! What every state store promises, asked of each: the rows of Dapr's conformance suite (components-contrib,
//! `tests/conformance/state`), and what they leave unsaid.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{
    Concurrency, DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore, WriteOptions,
};
use support::{delete_request, get, set_request, store, ttl};

/// Runs each promise against each store of this build, as tests of their own.
macro_rules! promises_of_every_store {
    ($($promise:ident,)*) => {
        mod in_memory {
            $(#[tokio::test] async fn $promise() {
                super::$promise(super::store("state.in-memory", &[])).await;
            })*
        }

        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test] async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("state.db");
                let store = super::store("state.sqlite", &[("connectionString", file.to_str().unwrap())]);
                super::$promise(store).await;
            })*
        }

        #[cfg(feature = "postgresql")]
        mod postgresql {
            $(#[tokio::test] async fn $promise() {
                let server = testbed::postgresql::PostgresqlServer::shared();
                let (address, tables) = (server.connection_string(), server.unused_prefix());
                let metadata = [("connectionString", address.as_str()), ("tablePrefix", &tables)];
                super::$promise(super::store("state.postgresql v2", &metadata)).await;
            })*
        }

        #[cfg(feature = "redis")]
        mod redis {
            $(#[tokio::test] async fn $promise() {
                let server = testbed::redis::RedisServer::start();
                let store = super::store("state.redis", &[("redisHost", &server.host())]);
                super::$promise(store).await;
            })*
        }

        /// Such servers take a while to come together: the promises share them.
        #[cfg(feature = "redis")]
        mod redis_shared {
            use testbed::redis::{Certificates, RedisCluster, RedisServer, WatchedRedis};

            #[tokio::test]
            async fn every_promise_is_kept_over_tls() {
                let certificates = Certificates::new();
                let server = RedisServer::start_with_tls(&certificates);
                keep_all_over_tls(&certificates, &[("redisHost", &server.tls_host())]).await;
            }

            #[tokio::test]
            async fn every_promise_is_kept_by_a_cluster() {
                let cluster = RedisCluster::start(0);
                keep_all(&[("redisHost", &cluster.hosts()), ("redisType", "cluster")]).await;
            }

            #[tokio::test]
            async fn every_promise_is_kept_by_the_master_that_sentinels_name() {
                let watched = WatchedRedis::start();
                let master = ("sentinelMasterName", watched.name());
                keep_all(&[("redisHost", &watched.sentinel.host()), ("failover", "true"), master]).await;
            }

            #[tokio::test]
            async fn every_promise_is_kept_by_a_cluster_over_tls() {
                let certificates = Certificates::new();
                let cluster = RedisCluster::start_with_tls(&certificates, 0);
                let metadata = [("redisHost", &*cluster.servers[0].tls_host()), ("redisType", "cluster")];
                keep_all_over_tls(&certificates, &metadata).await;
            }

            #[tokio::test]
            async fn every_promise_is_kept_over_tls_by_the_master_that_sentinels_name() {
                let certificates = Certificates::new();
                let watched = WatchedRedis::start_with_tls(&certificates);
                let master = ("sentinelMasterName", watched.name());
                let metadata = [("redisHost", &*watched.sentinel.tls_host()), ("failover", "true"), master];
                keep_all_over_tls(&certificates, &metadata).await;
            }

            async fn keep_all_over_tls(certificates: &Certificates, metadata: &[(&str, &str)]) {
                let tls = [
                    ("enableTLS", "true"),
                    ("insecureSkipTLSVerify", "true"),
                    ("clientCert", &certificates.pem("client.pem")),
                    ("clientKey", &certificates.pem("client.key")),
                ];
                keep_all(&[metadata, &tls].concat()).await;
            }

            /// Each with keys of its own, which are all in one slot of a cluster: a transaction's must be.
            async fn keep_all(metadata: &[(&str, &str)]) {
                let store = |promise: &str| {
                    let prefix = format!("{{{promise}}}");
                    super::store("state.redis", &[metadata, &[("keyPrefix", &prefix)]].concat())
                };
                let promises = tokio::task::LocalSet::new();
                promises
                    .run_until(async {
                        let running = [$((
                            stringify!($promise),
                            tokio::task::spawn_local(super::$promise(store(stringify!($promise)))),
                        )),*];
                        for (name, promise) in running {
                            assert!(promise.await.is_ok(), "{name} is not kept");
                        }
                    })
                    .await;
            }
        }
    };
}

promises_of_every_store! {
    a_value_comes_back_byte_for_byte,
    a_value_of_ten_megabytes_comes_back,
    a_missing_key_is_empty_and_has_no_etag,
    a_deleted_key_is_empty_and_has_no_etag,
    deleting_a_missing_key_succeeds,
    an_etag_is_not_empty_and_changes_with_every_write,
    the_current_etag_is_accepted,
    an_empty_etag_is_none,
    a_set_with_a_wrong_etag_is_refused,
    a_set_with_a_malformed_etag_is_refused,
    a_delete_with_a_wrong_etag_is_refused,
    a_second_first_write_without_an_etag_fails,
    a_first_write_with_a_stale_etag_fails,
    a_first_write_on_a_deleted_key_succeeds,
    the_last_of_two_last_writes_counts,
    a_ttl_that_is_no_number_writes_nothing,
    a_value_is_gone_when_its_ttl_is_over,
    an_expired_value_does_not_stop_a_first_write,
    a_negative_ttl_clears_the_ttl,
    an_empty_key_is_refused,
    a_key_with_the_separator_is_refused,
    keys_and_values_of_any_script_are_kept,
    no_update_is_lost_among_many_writers,
    a_call_given_up_does_not_disturb_the_next,
    a_transaction_writes_and_deletes_in_its_order,
    a_transaction_without_operations_succeeds,
    a_transaction_that_is_refused_changes_nothing,
    a_transaction_is_refused_for_what_each_of_its_operations_would_be,
    an_etag_in_a_transaction_is_compared_with_what_is_there_by_then,
    a_ttl_in_a_transaction_counts,
    others_see_all_of_a_transaction_or_none,
}

type Store = Arc<dyn StateStore>;

async fn set(store: &Store, key: &str, value: &str) {
    store.set(set_request(key, value)).await.unwrap();
}

async fn etag(store: &Store, key: &str) -> String {
    get(&**store, key).await.etag.expect("a written key has an etag")
}

async fn text(store: &Store, key: &str) -> String {
    String::from_utf8(get(&**store, key).await.data.to_vec()).unwrap()
}

fn with_etag(request: SetRequest, etag: &str) -> SetRequest {
    SetRequest { etag: Some(etag.to_owned()), ..request }
}

fn first_write(request: SetRequest) -> SetRequest {
    SetRequest { options: WriteOptions { concurrency: Concurrency::FirstWrite, ..request.options }, ..request }
}

fn class<T>(result: Result<T, Error>) -> Option<ErrorClass> {
    result.err().map(|error| error.class)
}

/// Asks again until the answer is yes, or the time is up.
async fn within(limit: Duration, question: impl AsyncFn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if question().await {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_value_comes_back_byte_for_byte(store: Store) {
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [b"text".as_slice(), b"", br#"{"a": [1, "b"]}"#, b"\0", &every_byte] {
        store.set(set_request("key", value)).await.unwrap();
        assert_eq!(get(&*store, "key").await.data, value);
    }
}

async fn a_value_of_ten_megabytes_comes_back(store: Store) {
    let value: Vec<u8> = (0..10_000_000_u32).map(|index| (index % 251) as u8).collect();
    store.set(set_request("key", &value)).await.unwrap();
    assert!(get(&*store, "key").await.data == value);
}

async fn a_missing_key_is_empty_and_has_no_etag(store: Store) {
    assert_eq!(get(&*store, "missing").await, GetResponse::default());
}

async fn a_deleted_key_is_empty_and_has_no_etag(store: Store) {
    set(&store, "key", "value").await;
    store.delete(delete_request("key")).await.unwrap();
    assert_eq!(get(&*store, "key").await, GetResponse::default());
}

async fn deleting_a_missing_key_succeeds(store: Store) {
    store.delete(delete_request("missing")).await.unwrap();
}

async fn an_etag_is_not_empty_and_changes_with_every_write(store: Store) {
    let mut seen = Vec::new();
    for value in ["one", "two", "two"] {
        set(&store, "key", value).await;
        let etag = etag(&store, "key").await;
        assert!(!etag.is_empty() && !seen.contains(&etag), "{etag:?} after {seen:?}");
        seen.push(etag);
    }
}

async fn the_current_etag_is_accepted(store: Store) {
    set(&store, "key", "one").await;
    let current = etag(&store, "key").await;
    store.set(with_etag(set_request("key", "two"), &current)).await.unwrap();
    assert_eq!(text(&store, "key").await, "two");
    let current = Some(etag(&store, "key").await);
    store.delete(DeleteRequest { etag: current, ..delete_request("key") }).await.unwrap();
    assert_eq!(get(&*store, "key").await, GetResponse::default());
}

async fn an_empty_etag_is_none(store: Store) {
    set(&store, "key", "one").await;
    store.set(with_etag(set_request("key", "two"), "")).await.unwrap();
    assert_eq!(text(&store, "key").await, "two");
    store.delete(DeleteRequest { etag: Some(String::new()), ..delete_request("key") }).await.unwrap();
    assert_eq!(text(&store, "key").await, "");
}

async fn a_set_with_a_wrong_etag_is_refused(store: Store) {
    set(&store, "key", "one").await;
    let stale = etag(&store, "key").await;
    set(&store, "key", "two").await;
    let refused = store.set(with_etag(set_request("key", "three"), &stale)).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    assert_eq!(text(&store, "key").await, "two");
}

async fn a_set_with_a_malformed_etag_is_refused(store: Store) {
    set(&store, "key", "one").await;
    let refused = store.set(with_etag(set_request("key", "two"), "not-an-etag")).await;
    assert!(is_about_the_etag(class(refused)));
    assert_eq!(text(&store, "key").await, "one");
}

/// Whether a malformed etag is invalid or a mismatch is each store's own, as it is in Dapr.
fn is_about_the_etag(class: Option<ErrorClass>) -> bool {
    matches!(class, Some(ErrorClass::EtagInvalid | ErrorClass::EtagMismatch))
}

async fn refuses_a_malformed_etag(store: Store, expected: ErrorClass) {
    let refused = store.set(with_etag(set_request("key", "value"), "not-an-etag")).await;
    assert_eq!(class(refused), Some(expected));
}

#[tokio::test]
async fn a_malformed_etag_is_invalid_for_a_store_in_memory() {
    refuses_a_malformed_etag(store("state.in-memory", &[]), ErrorClass::EtagInvalid).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_malformed_etag_is_invalid_for_sqlite() {
    let memory = [("connectionString", ":memory:")];
    refuses_a_malformed_etag(store("state.sqlite", &memory), ErrorClass::EtagInvalid).await;
}

#[cfg(feature = "redis")]
#[tokio::test]
async fn a_malformed_etag_is_invalid_for_redis_before_it_is_asked() {
    refuses_a_malformed_etag(store("state.redis", &[("redisHost", "127.0.0.1:1")]), ErrorClass::EtagInvalid).await;
}

#[cfg(feature = "postgresql")]
#[tokio::test]
async fn a_malformed_etag_is_a_mismatch_for_postgresql_before_it_is_asked() {
    let nowhere = [("connectionString", "host=127.0.0.1 port=1")];
    refuses_a_malformed_etag(store("state.postgresql v2", &nowhere), ErrorClass::EtagMismatch).await;
}

async fn a_delete_with_a_wrong_etag_is_refused(store: Store) {
    set(&store, "key", "one").await;
    let stale = etag(&store, "key").await;
    set(&store, "key", "two").await;
    for wrong in [stale, "not-an-etag".to_owned()] {
        let refused = store.delete(DeleteRequest { etag: Some(wrong), ..delete_request("key") }).await;
        assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    }
    assert_eq!(text(&store, "key").await, "two");
}

async fn a_second_first_write_without_an_etag_fails(store: Store) {
    store.set(first_write(set_request("key", "one"))).await.unwrap();
    assert!(store.set(first_write(set_request("key", "two"))).await.is_err());
    assert_eq!(text(&store, "key").await, "one");
}

async fn a_first_write_with_a_stale_etag_fails(store: Store) {
    store.set(first_write(set_request("key", "one"))).await.unwrap();
    let first = etag(&store, "key").await;
    store.set(first_write(with_etag(set_request("key", "two"), &first))).await.unwrap();
    let refused = store.set(first_write(with_etag(set_request("key", "three"), &first))).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    assert_eq!(text(&store, "key").await, "two");
}

async fn a_first_write_on_a_deleted_key_succeeds(store: Store) {
    store.set(first_write(set_request("key", "one"))).await.unwrap();
    store.delete(delete_request("key")).await.unwrap();
    store.set(first_write(set_request("key", "two"))).await.unwrap();
    assert_eq!(text(&store, "key").await, "two");
}

async fn the_last_of_two_last_writes_counts(store: Store) {
    let options = WriteOptions { concurrency: Concurrency::LastWrite, ..WriteOptions::default() };
    for value in ["one", "two"] {
        store.set(SetRequest { options, ..set_request("key", value) }).await.unwrap();
    }
    assert_eq!(text(&store, "key").await, "two");
}

async fn a_ttl_that_is_no_number_writes_nothing(store: Store) {
    let refused = store.set(SetRequest { metadata: ttl("foo"), ..set_request("key", "value") }).await;
    assert_eq!(class(refused), Some(ErrorClass::InvalidArgument));
    assert_eq!(get(&*store, "key").await, GetResponse::default());
}

async fn a_value_is_gone_when_its_ttl_is_over(store: Store) {
    store.set(SetRequest { metadata: ttl("2"), ..set_request("key", "value") }).await.unwrap();
    assert_eq!(text(&store, "key").await, "value");
    let is_gone = async || get(&*store, "key").await == GetResponse::default();
    assert!(within(Duration::from_secs(3), is_gone).await);
}

async fn an_expired_value_does_not_stop_a_first_write(store: Store) {
    store.set(SetRequest { metadata: ttl("1"), ..first_write(set_request("key", "one")) }).await.unwrap();
    let is_gone = async || get(&*store, "key").await.etag.is_none();
    assert!(within(Duration::from_secs(3), is_gone).await);
    store.set(first_write(set_request("key", "two"))).await.unwrap();
    assert_eq!(text(&store, "key").await, "two");
}

async fn a_negative_ttl_clears_the_ttl(store: Store) {
    for (key, seconds) in [("negative", "-1"), ("zero", "0")] {
        store.set(SetRequest { metadata: ttl("1"), ..set_request(key, "one") }).await.unwrap();
        store.set(SetRequest { metadata: ttl(seconds), ..set_request(key, "two") }).await.unwrap();
    }
    let is_gone = async || text(&store, "negative").await.is_empty() || text(&store, "zero").await.is_empty();
    assert!(!within(Duration::from_secs(3), is_gone).await);
}

async fn an_empty_key_is_refused(store: Store) {
    refuses_key(store, "").await;
}

async fn a_key_with_the_separator_is_refused(store: Store) {
    refuses_key(store, "other-app||key").await;
}

async fn refuses_key(store: Store, key: &str) {
    let read = store.get(GetRequest { key: key.to_owned(), ..GetRequest::default() }).await;
    assert_eq!(class(read), Some(ErrorClass::InvalidArgument));
    assert_eq!(class(store.set(set_request(key, "value")).await), Some(ErrorClass::InvalidArgument));
    assert_eq!(class(store.delete(delete_request(key)).await), Some(ErrorClass::InvalidArgument));
}

async fn keys_and_values_of_any_script_are_kept(store: Store) {
    for key in ["ключ", "鍵 with spaces", "quote ' \" \\ %s ?1", "|", "line\nbreak"] {
        set(&store, key, key).await;
        assert_eq!(text(&store, key).await, key);
    }
}

async fn no_update_is_lost_among_many_writers(store: Store) {
    const WRITERS: usize = 8;
    const UPDATES: usize = 5;
    set(&store, "counter", "0").await;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for _ in 0..UPDATES {
                while !increment(&store, "counter").await {}
            }
        });
    }
    writers.join_all().await;
    assert_eq!(text(&store, "counter").await, (WRITERS * UPDATES).to_string());
}

/// False where somebody else was quicker.
async fn increment(store: &Store, key: &str) -> bool {
    let current = get(&**store, key).await;
    // Lets the others read the same value.
    tokio::task::yield_now().await;
    let count: u64 = std::str::from_utf8(&current.data).unwrap().parse().unwrap();
    let request = with_etag(set_request(key, (count + 1).to_string()), &current.etag.unwrap());
    match store.set(request).await {
        Ok(()) => true,
        Err(error) if error.class == ErrorClass::EtagMismatch => false,
        Err(error) => panic!("{error}"),
    }
}

async fn a_call_given_up_does_not_disturb_the_next(store: Store) {
    for round in 0..20 {
        let given_up = store.set(set_request("other", "value"));
        let _ = tokio::time::timeout(Duration::from_micros(round * 50), given_up).await;
        set(&store, "key", &round.to_string()).await;
        assert_eq!(text(&store, "key").await, round.to_string());
    }
}

fn upsert(key: &str, value: &str) -> Operation {
    Operation::Upsert(set_request(key, value))
}

fn remove(key: &str) -> Operation {
    Operation::Delete(delete_request(key))
}

async fn a_transaction_writes_and_deletes_in_its_order(store: Store) {
    set(&store, "old", "value").await;
    let operations = vec![
        remove("missing"),
        upsert("key", "one"),
        remove("key"),
        upsert("key", "two"),
        upsert("key", "three"),
        remove("old"),
        upsert("other", "value"),
        remove("other"),
    ];
    store.transact(operations).await.unwrap();
    assert_eq!(text(&store, "key").await, "three");
    for gone in ["old", "other", "missing"] {
        assert_eq!(get(&*store, gone).await, GetResponse::default(), "{gone}");
    }
}

async fn a_transaction_without_operations_succeeds(store: Store) {
    store.transact(Vec::new()).await.unwrap();
}

async fn a_transaction_that_is_refused_changes_nothing(store: Store) {
    set(&store, "kept", "one").await;
    set(&store, "deleted", "one").await;
    set(&store, "guarded", "one").await;
    let stale = etag(&store, "guarded").await;
    set(&store, "guarded", "two").await;
    let etags = (etag(&store, "kept").await, etag(&store, "guarded").await);
    let refused = [
        Operation::Upsert(with_etag(set_request("guarded", "three"), &stale)),
        Operation::Delete(DeleteRequest { etag: Some(stale.clone()), ..delete_request("guarded") }),
    ];
    for operation in refused {
        let operations =
            vec![upsert("kept", "two"), upsert("new", "one"), remove("deleted"), operation, remove("kept")];
        let error = store.transact(operations).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::EtagMismatch, "{error}");
        assert!(error.message.contains("guarded"), "{error}");
    }
    assert_eq!(text(&store, "kept").await, "one");
    assert_eq!(text(&store, "deleted").await, "one");
    assert_eq!(text(&store, "guarded").await, "two");
    assert_eq!(get(&*store, "new").await, GetResponse::default());
    assert_eq!((etag(&store, "kept").await, etag(&store, "guarded").await), etags);
}

async fn a_transaction_is_refused_for_what_each_of_its_operations_would_be(store: Store) {
    let malformed = with_etag(set_request("bad", "value"), "not-an-etag");
    let forever = SetRequest { metadata: ttl("foo"), ..set_request("bad", "value") };
    let refused = store.transact(vec![upsert("key", "value"), Operation::Upsert(malformed)]).await;
    assert!(is_about_the_etag(class(refused)));
    for (operation, expected) in [
        (Operation::Upsert(forever), ErrorClass::InvalidArgument),
        (upsert("", "value"), ErrorClass::InvalidArgument),
        (remove("other-app||key"), ErrorClass::InvalidArgument),
    ] {
        let refused = store.transact(vec![upsert("key", "value"), operation]).await;
        assert_eq!(class(refused), Some(expected));
        assert_eq!(get(&*store, "key").await, GetResponse::default());
    }
}

async fn an_etag_in_a_transaction_is_compared_with_what_is_there_by_then(store: Store) {
    set(&store, "key", "one").await;
    let first = etag(&store, "key").await;
    let guarded = |value| Operation::Upsert(with_etag(set_request("key", value), &first));
    assert_eq!(class(store.transact(vec![guarded("two"), guarded("three")]).await), Some(ErrorClass::EtagMismatch));
    assert_eq!(text(&store, "key").await, "one");
    store.transact(vec![guarded("two"), upsert("key", "three")]).await.unwrap();
    assert_eq!(text(&store, "key").await, "three");
    let absent = |value| Operation::Upsert(first_write(set_request("new", value)));
    assert!(store.transact(vec![absent("one"), absent("two")]).await.is_err());
    assert_eq!(get(&*store, "new").await, GetResponse::default());
    store.transact(vec![absent("one"), remove("new"), absent("two")]).await.unwrap();
    assert_eq!(text(&store, "new").await, "two");
}

async fn a_ttl_in_a_transaction_counts(store: Store) {
    let expires = Operation::Upsert(SetRequest { metadata: ttl("1"), ..set_request("expires", "value") });
    store.transact(vec![expires, upsert("stays", "value")]).await.unwrap();
    let is_gone = async || get(&*store, "expires").await == GetResponse::default();
    assert!(within(Duration::from_secs(3), is_gone).await);
    assert_eq!(text(&store, "stays").await, "value");
}

async fn others_see_all_of_a_transaction_or_none(store: Store) {
    const TRANSACTIONS: usize = 50;
    store.transact(vec![upsert("one", "0"), upsert("two", "0")]).await.unwrap();
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 1..=TRANSACTIONS {
                let value = round.to_string();
                store.transact(vec![upsert("one", &value), upsert("two", &value)]).await.unwrap();
            }
        })
    };
    let number = async |key| text(&store, key).await.parse::<usize>().unwrap();
    while !writer.is_finished() {
        // Whoever reads the second one later never sees less of it.
        let one = number("one").await;
        assert!(one <= number("two").await);
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    assert_eq!((number("one").await, number("two").await), (TRANSACTIONS, TRANSACTIONS));
}
