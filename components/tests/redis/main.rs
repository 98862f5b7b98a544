//! `state.redis`: Dapr's layout byte for byte, its traps, and servers that come and go.
#![cfg(feature = "redis")]

mod cluster;
mod counter;
mod failover;
mod outages;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use components::{App, AppId, Registry};
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{
    Concurrency, Consistency, DeleteRequest, GetRequest, Operation, SetRequest, StateStore, WriteOptions,
};
use support::{delete_request, get, set_request, store, ttl};
use testbed::redis::RedisServer;

fn store_on(server: &RedisServer, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let host = server.host();
    let metadata: Vec<(&str, &str)> = [("redisHost", host.as_str())].iter().chain(more).copied().collect();
    store("state.redis", &metadata)
}

fn hash(server: &RedisServer, key: &str) -> Vec<String> {
    server.command(&["HGETALL", key])
}

fn with(concurrency: Concurrency, request: SetRequest) -> SetRequest {
    SetRequest { options: WriteOptions { concurrency, ..request.options }, ..request }
}

fn strong(request: SetRequest) -> SetRequest {
    SetRequest { options: WriteOptions { consistency: Consistency::Strong, ..request.options }, ..request }
}

fn with_etag(etag: &str, request: SetRequest) -> SetRequest {
    SetRequest { etag: Some(etag.to_owned()), ..request }
}

fn class<T>(result: Result<T, Error>) -> Option<ErrorClass> {
    result.err().map(|error| error.class)
}

#[tokio::test]
async fn a_value_is_a_hash_of_data_and_version() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "value", "version", "1"]);
    store.set(set_request("z", b"\0\xff")).await.unwrap();
    assert_eq!(server.command::<Vec<Vec<u8>>>(&["HGETALL", "z"]), [&b"data"[..], b"\0\xff", b"version", b"2"]);
    assert_eq!(get(&*store, "z").await.etag.as_deref(), Some("2"));
    assert_eq!(server.command::<i64>(&["TTL", "z"]), -1);
    store.delete(delete_request("z")).await.unwrap();
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
}

#[tokio::test]
async fn a_transaction_leaves_what_its_operations_alone_would() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    let operations = [
        set_request("z", "one"),
        set_request("z", "two"),
        with(Concurrency::FirstWrite, set_request("guarded", "value")),
        SetRequest { metadata: ttl("100"), ..set_request("short", "value") },
    ];
    store.transact(operations.map(Operation::Upsert).to_vec()).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2"]);
    // Dapr's saves without an etag go on working there.
    assert_eq!(hash(&server, "guarded"), ["data", "value", "version", "1"]);
    assert!((1..=100).contains(&server.command::<i64>(&["TTL", "short"])));
}

#[tokio::test]
async fn a_first_write_without_an_etag_in_a_transaction_is_for_keys_that_are_not_there() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    let first = |value| Operation::Upsert(with(Concurrency::FirstWrite, set_request("z", value)));
    store.transact(vec![first("one")]).await.unwrap();
    let other = Operation::Upsert(set_request("other", "value"));
    let refused = store.transact(vec![other.clone(), first("two")]).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    assert_eq!(class(store.transact(vec![first("one"), first("two")]).await), Some(ErrorClass::EtagMismatch));
    assert_eq!(server.command::<i64>(&["EXISTS", "other"]), 0);
    let deleted = Operation::Delete(delete_request("z"));
    store.transact(vec![deleted, first("three")]).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "three", "version", "1"]);
}

/// A user with the rights that Dapr's store needs: it sends scripts by their source.
#[tokio::test]
async fn a_user_whose_rights_are_cut_to_what_dapr_calls_can_write() {
    let server = RedisServer::start();
    let rights =
        "+eval +hget +hset +hincrby +hgetall +get +del +expire +persist +info +wait +ping +select +hello +client +auth";
    let words: Vec<&str> = "ACL SETUSER dapr on >password ~*".split(' ').chain(rights.split(' ')).collect();
    server.command::<()>(&words);
    let store = store_on(&server, &[("redisUsername", "dapr"), ("redisPassword", "password")]);
    store.set(set_request("z", "one")).await.unwrap();
    store.set(with_etag("1", set_request("z", "two"))).await.unwrap();
    store.transact(vec![Operation::Upsert(set_request("z", "three"))]).await.unwrap();
    store.delete(DeleteRequest { etag: Some("3".to_owned()), ..delete_request("z") }).await.unwrap();
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
}

#[tokio::test]
async fn a_transaction_on_a_version_that_is_no_whole_number_changes_nothing() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    for version in ["1.5", "0x10", "many"] {
        server.command::<()>(&["HSET", "odd", "data", "theirs", "version", version]);
        let operations = [set_request("key", "value"), set_request("odd", "ours")];
        let error = store.transact(operations.map(Operation::Upsert).to_vec()).await.unwrap_err();
        assert!(error.message.contains("the version of odd"), "{error}");
        assert_eq!(server.command::<i64>(&["EXISTS", "key"]), 0, "{version}");
    }
}

#[tokio::test]
async fn a_first_write_leaves_its_mark() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(with(Concurrency::FirstWrite, set_request("z", "value"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "value", "first-write", "0", "version", "1"]);
    store.set(with_etag("1", set_request("z", "again"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "again", "first-write", "0", "version", "2"]);
}

#[tokio::test]
async fn a_ttl_is_the_expiry_of_the_key_and_stays_until_it_is_cleared() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    let seconds = || server.command::<i64>(&["TTL", "z"]);
    store.set(SetRequest { metadata: ttl("100"), ..set_request("z", "one") }).await.unwrap();
    assert!((1..=100).contains(&seconds()));
    store.set(set_request("z", "two")).await.unwrap();
    assert!((1..=100).contains(&seconds()));
    store.set(SetRequest { metadata: ttl("-1"), ..set_request("z", "three") }).await.unwrap();
    assert_eq!(seconds(), -1);
}

#[tokio::test]
async fn a_refused_set_leaves_the_expiry_alone() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    let refused = SetRequest { metadata: ttl("100"), ..with_etag("7", set_request("z", "two")) };
    assert_eq!(class(store.set(refused).await), Some(ErrorClass::EtagMismatch));
    assert_eq!(server.command::<i64>(&["TTL", "z"]), -1);
}

#[tokio::test]
async fn the_default_ttl_of_the_component_counts_where_the_request_has_none() {
    let server = RedisServer::start();
    let store = store_on(&server, &[("ttlInSeconds", "100")]);
    store.set(set_request("default", "value")).await.unwrap();
    store.set(SetRequest { metadata: ttl("1000"), ..set_request("own", "value") }).await.unwrap();
    store.set(SetRequest { metadata: ttl("-1"), ..set_request("never", "value") }).await.unwrap();
    assert!((1..=100).contains(&server.command::<i64>(&["TTL", "default"])));
    assert!((101..=1000).contains(&server.command::<i64>(&["TTL", "own"])));
    assert_eq!(server.command::<i64>(&["TTL", "never"]), -1);
}

#[tokio::test]
async fn what_dapr_wrote_is_read_and_written_on() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    server.command::<()>(&["HSET", "z", "data", "by Dapr", "version", "7"]);
    let item = get(&*store, "z").await;
    assert_eq!((&*item.data, item.etag.as_deref()), (&b"by Dapr"[..], Some("7")));
    store.set(with_etag("7", set_request("z", "by a guest"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "by a guest", "version", "8"]);
    store.delete(DeleteRequest { etag: Some("8".into()), ..delete_request("z") }).await.unwrap();
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
}

#[tokio::test]
async fn a_plain_string_is_read_without_an_etag_and_replaced_by_a_set() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    server.command::<()>(&["SET", "z", "plain"]);
    let item = get(&*store, "z").await;
    assert_eq!((&*item.data, item.etag), (&b"plain"[..], None));
    store.set(set_request("z", "hash")).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "hash", "version", "1"]);
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_to_read_and_no_obstacle_to_delete() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    server.command::<()>(&["RPUSH", "list", "a"]);
    server.command::<()>(&["HSET", "hash", "data", "without a version"]);
    for key in ["list", "hash"] {
        let read = store.get(GetRequest { key: key.into(), ..GetRequest::default() }).await;
        assert_eq!(class(read), Some(ErrorClass::Internal), "{key}");
        store.delete(DeleteRequest { etag: Some("3".into()), ..delete_request(key) }).await.unwrap();
        assert_eq!(server.command::<i64>(&["EXISTS", key]), 0);
    }
}

#[tokio::test]
async fn a_set_with_an_etag_creates_a_missing_key() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(with_etag("5", set_request("z", "value"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "value", "version", "1"]);
}

#[tokio::test]
async fn after_a_first_write_no_set_succeeds_without_an_etag() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(with(Concurrency::FirstWrite, set_request("z", "one"))).await.unwrap();
    for concurrency in [Concurrency::Unspecified, Concurrency::FirstWrite, Concurrency::LastWrite] {
        let refused = store.set(with(concurrency, set_request("z", "two"))).await;
        assert_eq!(class(refused), Some(ErrorClass::Internal), "{concurrency:?}");
    }
    let refused = store.set(with(Concurrency::LastWrite, with_etag("1", set_request("z", "two")))).await;
    assert_eq!(class(refused), Some(ErrorClass::EtagMismatch));
    assert_eq!(hash(&server, "z"), ["data", "one", "first-write", "0", "version", "1"]);
}

#[tokio::test]
async fn a_first_write_succeeds_on_what_only_last_writes_wrote() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    store.set(with(Concurrency::FirstWrite, set_request("z", "two"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2", "first-write", "0"]);
}

#[tokio::test]
async fn a_last_write_ignores_the_etag() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    store.set(with(Concurrency::LastWrite, with_etag("nonsense", set_request("z", "two")))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2"]);
}

#[tokio::test]
async fn the_etag_zero_deletes_every_version() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    store.delete(DeleteRequest { etag: Some("0".into()), ..delete_request("z") }).await.unwrap();
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
}

fn json() -> Option<Vec<(String, String)>> {
    Some(vec![("contentType".to_owned(), "application/json".to_owned())])
}

#[tokio::test]
async fn without_redisjson_the_content_type_means_nothing() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(SetRequest { metadata: json(), ..set_request("z", "{}") }).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "{}", "version", "1"]);
    let read = store.get(GetRequest { key: "z".into(), metadata: json(), ..GetRequest::default() }).await.unwrap();
    assert_eq!(read.data, "{}");
    let upsert = Operation::Upsert(SetRequest { metadata: json(), ..set_request("z", "[]") });
    store.transact(vec![upsert]).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "[]", "version", "2"]);
    store.delete(DeleteRequest { metadata: json(), ..delete_request("z") }).await.unwrap();
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
}

#[tokio::test]
async fn documents_of_redisjson_are_refused_by_name() {
    // A command of that name is all that tells such a server.
    let server = RedisServer::start_with(&["--rename-command", "ECHO", "JSON.GET"]);
    let store = store_on(&server, &[]);
    let refused = store.set(SetRequest { metadata: json(), ..set_request("z", "{}") }).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidArgument);
    assert!(refused.message.contains("RedisJSON"), "{refused}");
    let upserts = [set_request("z", "{}"), SetRequest { metadata: json(), ..set_request("y", "{}") }];
    let refused = store.transact(upserts.map(Operation::Upsert).to_vec()).await;
    assert_eq!(class(refused), Some(ErrorClass::InvalidArgument));
    assert_eq!(server.command::<i64>(&["DBSIZE"]), 0);
    // Elsewhere the same words mean nothing.
    let request = SetRequest { content_type: Some("application/json".into()), ..set_request("z", "{}") };
    store.set(request).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "{}", "version", "1"]);
}

#[tokio::test]
async fn keys_begin_with_the_app_id() {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "kind: Component\nmetadata: {{name: state}}\nspec:\n  type: state.redis\n  metadata: [{{name: redisHost, value: '{}'}}]\n",
        server.host()
    );
    fs::write(folder.path().join("redis.yaml"), yaml).unwrap();
    let app = App { id: AppId::new("myapp").ok(), ..App::default() };
    let components = Registry::builtin().load(&[folder.path()], &app).unwrap();
    components.state_stores["state"].set(set_request("z", "value")).await.unwrap();
    assert_eq!(hash(&server, "myapp||z"), ["data", "value", "version", "1"]);
}

#[tokio::test]
async fn another_database_of_the_server_can_be_chosen() {
    let server = RedisServer::start();
    let store = store_on(&server, &[("redisDB", "3")]);
    store.set(set_request("z", "value")).await.unwrap();
    assert!(server.command::<String>(&["INFO", "keyspace"]).contains("db3:keys=1"));
}

#[tokio::test]
async fn a_password_is_used_and_never_told() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let store = store_on(&server, &[("redisPassword", "hunter2")]);
    store.set(set_request("z", "value")).await.unwrap();
    for wrong in [&[("redisPassword", "hunter3")][..], &[]] {
        let error = store_on(&server, wrong).set(set_request("z", "value")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::PermissionDenied);
        assert!(!error.message.contains("hunter"), "{error}");
    }
}

fn with_replica(server: &RedisServer) -> RedisServer {
    let port = server.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--enable-debug-command", "local"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !server.command::<String>(&["INFO", "replication"]).contains("state=online") {
        assert!(Instant::now() < deadline, "the replica does not come online");
        std::thread::sleep(Duration::from_millis(20));
    }
    replica
}

fn waits(server: &RedisServer) -> bool {
    server.command::<String>(&["INFO", "commandstats"]).contains("cmdstat_wait:")
}

#[tokio::test]
async fn a_strong_write_waits_for_the_replicas_and_others_do_not() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(strong(set_request("z", "alone"))).await.unwrap();
    assert!(!waits(&server));
    let replica = with_replica(&server);
    store.set(set_request("z", "weak")).await.unwrap();
    assert!(!waits(&server));
    store.set(strong(set_request("z", "strong"))).await.unwrap();
    assert!(waits(&server));
    assert_eq!(hash(&replica, "z"), ["data", "strong", "version", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strong_write_that_waits_holds_up_nobody() {
    let server = RedisServer::start();
    let replica = with_replica(&server);
    let store = store_on(&server, &[]);
    store.set(set_request("z", "value")).await.unwrap();
    let asleep = std::thread::spawn(move || replica.command::<()>(&["DEBUG", "SLEEP", "2"]));
    // The replica is asleep when it stops answering.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.set(strong(set_request("strong", "value"))).await }
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    while server.command::<i64>(&["EXISTS", "strong"]) == 0 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(get(&*store, "z").await.data, "value");
    assert!(!waiting.is_finished(), "the strong write did not wait");
    waiting.await.unwrap().unwrap();
    asleep.join().unwrap();
}
