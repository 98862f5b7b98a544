//! Servers that are away, hang, are full or only read, and what becomes of calls meanwhile.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use host_abi::error::ErrorClass;
use host_abi::state::{Concurrency, GetRequest, Operation, StateStore};
use testbed::redis::RedisServer;
use tokio::runtime::Builder;

use crate::support::{delete_request, get, set_request, store};
use crate::{class, hash, store_on, strong, with, with_etag};

#[tokio::test]
async fn guests_of_a_runtime_share_one_connection() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    let mut guests = tokio::task::JoinSet::new();
    for guest in 0..200 {
        let store = Arc::clone(&store);
        guests.spawn(async move {
            let key = guest.to_string();
            store.set(set_request(&key, &key)).await.unwrap();
            assert_eq!(get(&*store, &key).await.data, key);
        });
    }
    guests.join_all().await;
    assert_eq!(clients(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_another_runtime_have_a_connection_of_their_own() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "value")).await.unwrap();
    let ask_elsewhere = || {
        let elsewhere = Builder::new_current_thread().enable_all().build().unwrap();
        elsewhere.block_on(async { assert_eq!(get(&*store, "z").await.data, "value") });
        clients(&server)
    };
    let connected = thread::scope(|scope| scope.spawn(ask_elsewhere).join().unwrap());
    assert_eq!(connected, 2);
}

/// How many connections there are beside the one that asks.
fn clients(server: &RedisServer) -> usize {
    server.command::<String>(&["CLIENT", "LIST"]).lines().count() - 1
}

#[tokio::test]
async fn an_outage_is_told_at_once_and_over_when_it_is_over() {
    let mut server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "value")).await.unwrap();
    server.stop();
    for _ in 0..3 {
        let asked = Instant::now();
        let error = store.get(GetRequest { key: "z".into(), ..GetRequest::default() }).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
        assert!(error.message.starts_with(&format!("component store: redis at {}: ", server.host())), "{error}");
        assert!(asked.elapsed() < Duration::from_secs(5));
    }
    assert_eq!(class(store.set(set_request("z", "lost")).await), Some(ErrorClass::Unavailable));
    server.restart();
    store.set(with(Concurrency::FirstWrite, set_request("z", "back"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "back", "first-write", "0", "version", "1"]);
    assert_eq!(get(&*store, "z").await.data, "back");
}

#[tokio::test]
async fn a_restart_between_two_calls_is_not_noticed() {
    let mut server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "before")).await.unwrap();
    server.restart();
    assert_eq!(get(&*store, "z").await.etag, None);
    server.restart();
    store.set(set_request("z", "after")).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "after", "version", "1"]);
}

#[tokio::test]
async fn a_restart_that_one_call_noticed_is_no_surprise_to_the_next() {
    let mut server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(strong(set_request("z", "before"))).await.unwrap();
    get(&*store, "z").await;
    server.stop();
    assert!(store.get(GetRequest { key: "z".into(), ..GetRequest::default() }).await.is_err());
    server.restart();
    store.set(strong(with(Concurrency::FirstWrite, set_request("z", "after")))).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "after");
}

#[tokio::test]
async fn a_conditional_write_goes_out_on_a_connection_that_is_alive() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    server.command::<i64>(&["CLIENT", "KILL", "TYPE", "normal"]);
    // Long enough for the connection not to be trusted any more.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.set(with_etag("1", set_request("z", "two"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2"]);
}

#[tokio::test]
async fn a_store_is_there_before_its_server() {
    let mut server = RedisServer::start();
    server.stop();
    let store = store_on(&server, &[]);
    assert_eq!(class(store.set(set_request("z", "value")).await), Some(ErrorClass::Unavailable));
    server.restart();
    store.set(set_request("z", "value")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_accepts_and_keeps_silent_is_given_up_after_the_dial_timeout() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let host = silent.local_addr().unwrap().to_string();
    let store = store("state.redis", &[("redisHost", &host), ("dialTimeout", "300"), ("readTimeout", "200ms")]);
    let asked = Instant::now();
    assert_eq!(class(store.set(set_request("z", "value")).await), Some(ErrorClass::Unavailable));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_the_read_timeout() {
    let server = RedisServer::start();
    let store = store_on(&server, &[("readTimeout", "200ms"), ("redisMaxRetries", "-1")]);
    store.set(set_request("z", "value")).await.unwrap();
    server.command::<()>(&["CLIENT", "PAUSE", "1000"]);
    let asked = Instant::now();
    let read = store.get(GetRequest { key: "z".into(), ..GetRequest::default() }).await;
    assert_eq!(class(read), Some(ErrorClass::Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
    // Answered when the pause is over.
    server.command::<String>(&["PING"]);
    assert_eq!(get(&*store, "z").await.data, "value");
}

#[tokio::test]
async fn a_full_server_says_so_and_keeps_what_it_has() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "value")).await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = store.set(with_etag("1", set_request("z", "more"))).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::Unavailable);
    assert!(refused.message.contains("maxmemory"), "{refused}");
    let operations = vec![Operation::Upsert(set_request("y", "new")), Operation::Delete(delete_request("z"))];
    assert_eq!(class(store.transact(operations).await), Some(ErrorClass::Unavailable));
    assert_eq!(server.command::<i64>(&["DBSIZE"]), 1);
    assert_eq!(get(&*store, "z").await.data, "value");
    // What begins by making room is done to its end.
    let operations = vec![Operation::Delete(delete_request("z")), Operation::Upsert(set_request("y", "new"))];
    store.transact(operations).await.unwrap();
    assert_eq!(hash(&server, "y"), ["data", "new", "version", "1"]);
}

#[tokio::test]
async fn a_server_that_only_reads_is_unavailable_until_it_writes_again() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    for request in [set_request("z", "two"), with_etag("1", set_request("z", "two"))] {
        assert_eq!(class(store.set(request).await), Some(ErrorClass::Unavailable));
    }
    server.command::<()>(&["REPLICAOF", "NO", "ONE"]);
    store.set(with_etag("1", set_request("z", "two"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2"]);
}

#[tokio::test]
async fn a_server_that_lost_its_scripts_gets_them_again() {
    let server = RedisServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "one")).await.unwrap();
    server.command::<()>(&["SCRIPT", "FLUSH"]);
    store.set(with_etag("1", set_request("z", "two"))).await.unwrap();
    assert_eq!(hash(&server, "z"), ["data", "two", "version", "2"]);
}

#[tokio::test]
async fn a_conditional_write_without_an_answer_is_not_sent_again() {
    let server = RedisServer::start();
    goes_out_once(&*store_on(&server, &IMPATIENT), &server).await;
}

/// Metadata of a store that would try again when the answer has come.
pub(crate) const IMPATIENT: [(&str, &str); 2] = [("readTimeout", "100ms"), ("redisMinRetryInterval", "500ms")];

/// `master` is the one that has the key `z`. Sent again, the write would be done, or refused for the etag that it
/// outdated itself: it would not be `unavailable`.
pub(crate) async fn goes_out_once(store: &dyn StateStore, master: &RedisServer) {
    store.set(set_request("z", "one")).await.unwrap();
    master.command::<()>(&["CLIENT", "PAUSE", "400", "WRITE"]);
    assert_eq!(class(store.set(with_etag("1", set_request("z", "two"))).await), Some(ErrorClass::Unavailable));
    // Done when the pause is over.
    master.command::<()>(&["DEL", "{z}other"]);
    assert_eq!(hash(master, "z"), ["data", "two", "version", "2"]);
}
