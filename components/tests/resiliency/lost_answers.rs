//! Writes that were done and whose answers were lost: which are tried again, and which are not.

use std::sync::Arc;

use host_abi::error::ErrorClass;
use host_abi::state::{Concurrency, Consistency, DeleteRequest, Operation, SetRequest, StateStore, WriteOptions};
use testbed::redis::RedisServer;

use crate::servers::Lossy;
use crate::support::{delete_request, set_request, ttl};
use crate::{first_write, in_time, redis, unavailable};

/// Tries as often as it takes.
const RETRIES: &str = "retries: {DefaultRetryPolicy: {duration: 1ms}}";

/// A Redis that knows the scripts, something that loses so many answers to them, and a store behind that.
async fn losing(losses: usize) -> (RedisServer, Lossy, Arc<dyn StateStore>) {
    losing_answers_to("EVAL", losses).await
}

async fn losing_answers_to(word: &'static str, losses: usize) -> (RedisServer, Lossy, Arc<dyn StateStore>) {
    let server = RedisServer::start();
    let direct = redis(&server.host(), "5s", "");
    direct.set(set_request("warm", "one")).await.unwrap();
    direct.delete(DeleteRequest { etag: Some("1".into()), ..delete_request("warm") }).await.unwrap();
    direct.transact(vec![Operation::Upsert(set_request("warm", "one"))]).await.unwrap();
    let lossy = Lossy::start(server.port(), word, losses).await;
    let store = redis(&lossy.host(), "1h", RETRIES);
    (server, lossy, store)
}

fn hash(server: &RedisServer, key: &str) -> Vec<String> {
    server.command(&["HGETALL", key])
}

#[tokio::test]
async fn a_write_without_conditions_is_tried_again() {
    let (server, lossy, store) = losing(2).await;
    in_time(store.set(SetRequest { metadata: ttl("100"), ..set_request("key", "value") })).await.unwrap();
    assert_eq!(lossy.seen(), 3);
    assert_eq!(hash(&server, "key"), ["data", "value", "version", "3"]);
    assert!((1..=100).contains(&server.command::<i64>(&["TTL", "key"])));
}

#[tokio::test]
async fn a_transaction_without_conditions_is_tried_again() {
    let (server, lossy, store) = losing(1).await;
    let operations = vec![
        Operation::Upsert(set_request("key", "value")),
        Operation::Delete(delete_request("warm")),
        Operation::Upsert(set_request("warm", "two")),
    ];
    in_time(store.transact(operations)).await.unwrap();
    assert_eq!(lossy.seen(), 2);
    assert_eq!(hash(&server, "key"), ["data", "value", "version", "2"]);
    assert_eq!(hash(&server, "warm"), ["data", "two", "version", "1"]);
}

#[tokio::test]
async fn a_first_write_is_done_once() {
    let (server, lossy, store) = losing(1).await;
    unavailable(in_time(store.set(first_write("value"))).await);
    assert_eq!(lossy.seen(), 1);
    assert_eq!(hash(&server, "key"), ["data", "value", "first-write", "0", "version", "1"]);
}

#[tokio::test]
async fn a_set_and_a_delete_with_an_etag_are_done_once() {
    let (server, lossy, store) = losing(2).await;
    unavailable(in_time(store.set(SetRequest { etag: Some("1".into()), ..set_request("warm", "two") })).await);
    assert_eq!(hash(&server, "warm"), ["data", "two", "version", "2"]);
    unavailable(in_time(store.delete(DeleteRequest { etag: Some("2".into()), ..delete_request("warm") })).await);
    assert_eq!(hash(&server, "warm"), Vec::<String>::new());
    assert_eq!(lossy.seen(), 2);
}

#[tokio::test]
async fn a_transaction_with_a_condition_is_done_once_and_whole() {
    let (server, lossy, store) = losing(1).await;
    let operations = [set_request("one", "value"), first_write("value"), set_request("two", "value")];
    unavailable(in_time(store.transact(operations.map(Operation::Upsert).to_vec())).await);
    assert_eq!(lossy.seen(), 1);
    assert_eq!(hash(&server, "one"), ["data", "value", "version", "1"]);
    assert_eq!(hash(&server, "two"), ["data", "value", "version", "1"]);
    assert_eq!(hash(&server, "key"), ["data", "value", "version", "1"]);
}

#[tokio::test]
async fn a_strong_write_with_a_condition_is_done_once_where_nothing_is_heard_of_its_replicas() {
    let (server, lossy, store) = losing_answers_to("replication", 1).await;
    let options = WriteOptions { consistency: Consistency::Strong, concurrency: Concurrency::FirstWrite };
    unavailable(in_time(store.set(SetRequest { options, ..set_request("key", "value") })).await);
    assert_eq!(lossy.seen(), 1);
    assert_eq!(hash(&server, "key"), ["data", "value", "first-write", "0", "version", "1"]);
}

#[tokio::test]
async fn a_write_that_was_refused_is_not_tried_again() {
    let (_server, lossy, store) = losing(0).await;
    let refused = in_time(store.set(SetRequest { etag: Some("7".into()), ..set_request("warm", "two") })).await;
    assert_eq!(refused.unwrap_err().class, ErrorClass::EtagMismatch);
    assert_eq!(lossy.seen(), 1);
}
