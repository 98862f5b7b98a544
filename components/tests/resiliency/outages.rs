//! Stores that go away, come back, or answer late.

use std::sync::Arc;

use testbed::redis::RedisServer;

use crate::{get, in_time, redis, set, support, unavailable, until};

fn blocked(server: &RedisServer) -> usize {
    let clients: String = server.command(&["INFO", "clients"]);
    let count = clients.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    count.unwrap().trim().parse().unwrap()
}

/// Writes wait until [`resume`]; reads do not.
fn pause(server: &RedisServer) {
    server.command::<()>(&["CLIENT", "PAUSE", "600000", "WRITE"]);
}

fn resume(server: &RedisServer) {
    server.command::<()>(&["CLIENT", "UNPAUSE"]);
}

/// The calls of scripts by their hash.
fn scripts(server: &RedisServer) -> u32 {
    let statistics: String = server.command(&["INFO", "commandstats"]);
    let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap()
}

fn version(server: &RedisServer) -> Option<u32> {
    server.command(&["HGET", "key", "version"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_is_unavailable_until_it_is_back_and_no_other_is() {
    let (mut server, other) = (RedisServer::start(), RedisServer::start());
    let (store, untouched) = (redis(&server.host(), "5s", ""), redis(&other.host(), "5s", ""));
    set(&*store, "before").await.unwrap();
    server.stop();
    for _ in 0..3 {
        unavailable(set(&*store, "lost").await);
        unavailable(get(&*store).await);
        set(&*untouched, "value").await.unwrap();
    }
    server.restart();
    set(&*store, "after").await.unwrap();
    assert_eq!(get(&*store).await.unwrap().data, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_hangs_holds_up_no_call_to_another_store() {
    let (server, other) = (RedisServer::start(), RedisServer::start());
    let (store, untouched) = (redis(&server.host(), "5s", ""), redis(&other.host(), "5s", ""));
    set(&*store, "before").await.unwrap();
    pause(&server);
    let hanging = tokio::spawn({
        let store = Arc::clone(&store);
        async move { set(&*store, "late").await }
    });
    until(|| blocked(&server) == 1).await;
    set(&*untouched, "value").await.unwrap();
    assert_eq!(get(&*untouched).await.unwrap().data, "value");
    assert!(!hanging.is_finished());
    resume(&server);
    hanging.await.unwrap().unwrap();
    assert_eq!(get(&*store).await.unwrap().data, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_of_a_policy_ends_an_attempt() {
    let server = RedisServer::start();
    let store = redis(&server.host(), "5s", "timeouts: {DefaultTimeoutPolicy: 300ms}");
    set(&*store, "before").await.unwrap();
    pause(&server);
    let message = unavailable(set(&*store, "late").await);
    assert!(message.contains("no answer within 300ms, the time-out of its policy"), "{message}");
    resume(&server);
    // Nobody waits for the answer, and the write is done all the same.
    until(|| version(&server) == Some(2)).await;
    assert_eq!(get(&*store).await.unwrap().data, "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_store_is_tried_as_often_as_the_policy_says_and_no_more() {
    let server = RedisServer::start();
    let policies =
        "timeouts: {DefaultTimeoutPolicy: 300ms}, retries: {DefaultRetryPolicy: {duration: 1ms, maxRetries: 2}}";
    let store = redis(&server.host(), "5s", policies);
    set(&*store, "before").await.unwrap();
    pause(&server);
    unavailable(set(&*store, "late").await);
    resume(&server);
    until(|| version(&server) == Some(4)).await;
    // In the order of one connection: what the server still had to do is done by now.
    assert_eq!(get(&*store).await.unwrap().data, "late");
    assert_eq!(version(&server), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_write_that_a_slow_store_did_not_answer_is_done_once() {
    let server = RedisServer::start();
    let policies =
        "timeouts: {DefaultTimeoutPolicy: 300ms}, retries: {DefaultRetryPolicy: {duration: 1ms, maxRetries: 2}}";
    let store = redis(&server.host(), "5s", policies);
    set(&*store, "before").await.unwrap();
    let scripts_before = scripts(&server);
    pause(&server);
    let request = host_abi::state::SetRequest { etag: Some("1".to_owned()), ..support::set_request("key", "late") };
    unavailable(in_time(store.set(request)).await);
    resume(&server);
    until(|| version(&server) == Some(2)).await;
    assert_eq!(get(&*store).await.unwrap().data, "late");
    assert_eq!((version(&server), scripts(&server)), (Some(2), scripts_before + 1));
}
