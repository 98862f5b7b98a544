//! Retries and circuit breakers, by what comes to the server.

use std::time::Duration;

use testbed::redis::RedisServer;

use crate::servers::Closing;
use crate::{first_write, get, in_time, redis, set, unavailable, until};

const AT_ONCE: &str = "1ns";

#[tokio::test]
async fn retries_are_counted() {
    for (retries, connections) in [("maxRetries: 3", 4), ("maxRetries: 0", 1)] {
        let down = Closing::start().await;
        let policies = format!("retries: {{DefaultRetryPolicy: {{duration: 1ms, {retries}}}}}");
        let store = redis(&down.host(), AT_ONCE, &policies);
        unavailable(get(&*store).await);
        assert_eq!(down.connections(), connections, "{retries}");
    }
}

#[tokio::test]
async fn a_write_with_a_condition_is_tried_again_as_long_as_nothing_of_it_was_sent() {
    let down = Closing::start().await;
    let store = redis(&down.host(), AT_ONCE, "retries: {DefaultRetryPolicy: {duration: 1ms, maxRetries: 3}}");
    unavailable(in_time(store.set(first_write("value"))).await);
    assert_eq!(down.connections(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_last_until_the_store_is_back() {
    let mut server = RedisServer::start();
    let store = redis(&server.host(), AT_ONCE, "retries: {DefaultRetryPolicy: {duration: 10ms}}");
    set(&*store, "before").await.unwrap();
    server.stop();
    let down = Closing::start_on(server.port()).await;
    let writing = tokio::spawn(async move { set(&*store, "after").await });
    for _ in 0..3 {
        in_time(down.accepted()).await;
    }
    down.stop().await;
    server.restart();
    writing.await.unwrap().unwrap();
    assert_eq!(server.command::<String>(&["HGET", "key", "data"]), "after");
}

#[tokio::test]
async fn an_open_circuit_breaker_keeps_calls_from_the_store() {
    let down = Closing::start().await;
    let policies = "circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: consecutiveFailures >= 3, timeout: 1h}}";
    let store = redis(&down.host(), AT_ONCE, policies);
    for _ in 0..3 {
        let message = unavailable(get(&*store).await);
        assert!(!message.contains("circuit breaker"), "{message}");
    }
    for _ in 0..3 {
        let message = unavailable(get(&*store).await);
        assert!(message.contains("component store: the circuit breaker is open"), "{message}");
    }
    assert_eq!(down.connections(), 3);
}

#[tokio::test]
async fn a_circuit_breaker_counts_every_attempt_and_ends_the_retries() {
    let down = Closing::start().await;
    let policies = "retries: {DefaultRetryPolicy: {duration: 1ms}},
        circuitBreakers: {DefaultCircuitBreakerPolicy: {timeout: 1h}}";
    let store = redis(&down.host(), AT_ONCE, policies);
    let message = unavailable(get(&*store).await);
    assert!(message.contains("the circuit breaker is open"), "{message}");
    assert_eq!(down.connections(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_circuit_breaker_tries_the_store_again_and_closes_when_it_answers() {
    let mut server = RedisServer::start();
    server.stop();
    let down = Closing::start_on(server.port()).await;
    let policies = "circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: consecutiveFailures >= 2, timeout: 50ms}}";
    let store = redis(&server.host(), AT_ONCE, policies);
    unavailable(get(&*store).await);
    unavailable(get(&*store).await);
    // Half-open, one call passes; it fails, and the breaker is open again.
    tokio::time::sleep(Duration::from_millis(60)).await;
    let message = unavailable(get(&*store).await);
    assert!(!message.contains("circuit breaker"), "{message}");
    assert_eq!(down.connections(), 3);
    down.stop().await;
    server.restart();
    tokio::time::sleep(Duration::from_millis(60)).await;
    set(&*store, "value").await.unwrap();
    // Closed, one failure does not open it.
    server.stop();
    unavailable(get(&*store).await);
    let message = unavailable(get(&*store).await);
    assert!(!message.contains("circuit breaker"), "{message}");
}

#[tokio::test]
async fn what_a_store_at_work_refuses_opens_no_circuit_breaker() {
    let server = RedisServer::start();
    let policies = "circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: totalFailures > 0, timeout: 1h}}";
    let store = redis(&server.host(), AT_ONCE, policies);
    in_time(store.set(first_write("value"))).await.unwrap();
    for _ in 0..3 {
        assert!(in_time(store.set(first_write("again"))).await.is_err());
    }
    assert_eq!(get(&*store).await.unwrap().data, "value");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_any_more_does_not_keep_a_circuit_breaker_half_open() {
    let server = RedisServer::start();
    let policies = "timeouts: {DefaultTimeoutPolicy: 1h},
        circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: totalFailures > 0, timeout: 1ms}}";
    let store = redis(&server.host(), AT_ONCE, policies);
    set(&*store, "value").await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    unavailable(set(&*store, "full").await);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    server.command::<()>(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let abandoned = tokio::spawn({
        let store = store.clone();
        async move { set(&*store, "abandoned").await }
    });
    let is_blocked = || server.command::<String>(&["INFO", "clients"]).contains("blocked_clients:1");
    until(is_blocked).await;
    let message = unavailable(get(&*store).await);
    assert!(message.contains("half-open"), "{message}");
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());
    server.command::<()>(&["CLIENT", "UNPAUSE"]);
    get(&*store).await.unwrap();
}
