//! `initTimeout`: the first calls to a store that is not there yet.

use std::sync::Arc;

use components::{App, Registry};
use host_abi::error::ErrorClass;
use testbed::redis::RedisServer;

use crate::servers::Closing;
use crate::{first_write, get, in_time, redis, set, support, unavailable};

const LONG: &str = "1h";
const NONE: &str = "1ns";

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_down_at_the_start_is_waited_for() {
    let mut server = RedisServer::start();
    server.stop();
    let down = Closing::start_on(server.port()).await;
    let store = redis(&server.host(), LONG, "");
    let reading = tokio::spawn({
        let store = Arc::clone(&store);
        async move { get(&*store).await }
    });
    // A write with a condition is waited with as well: nothing of it was sent.
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { in_time(store.set(first_write("value"))).await }
    });
    for _ in 0..4 {
        in_time(down.accepted()).await;
    }
    down.stop().await;
    server.restart();
    reading.await.unwrap().unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(server.command::<Vec<String>>(&["HGETALL", "key"])[..2], ["data", "value"]);
    assert_eq!(server.command::<i64>(&["HGET", "key", "version"]), 1);
}

#[tokio::test]
async fn a_store_that_never_comes_up_is_tried_until_its_time_is_over_and_then_once_a_call() {
    let down = Closing::start().await;
    let store = redis(&down.host(), "300ms", "");
    unavailable(get(&*store).await);
    let at_first = down.connections();
    assert!(at_first > 1, "{at_first}");
    unavailable(get(&*store).await);
    assert_eq!(down.connections(), at_first + 1);
}

#[tokio::test]
async fn a_store_that_answered_once_is_not_waited_for() {
    let mut server = RedisServer::start();
    let store = redis(&server.host(), LONG, "");
    set(&*store, "value").await.unwrap();
    server.stop();
    unavailable(get(&*store).await);
}

#[tokio::test]
async fn the_retries_of_a_policy_are_part_of_the_first_attempt() {
    let down = Closing::start().await;
    let store = redis(&down.host(), NONE, "retries: {DefaultRetryPolicy: {duration: 1ms, maxRetries: 2}}");
    unavailable(get(&*store).await);
    assert_eq!(down.connections(), 3);
}

#[tokio::test]
async fn a_refused_password_is_an_answer() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let policies =
        "retries: {DefaultRetryPolicy: {}}, circuitBreakers: {DefaultCircuitBreakerPolicy: {trip: requests > 0}}";
    let store = redis(&server.host(), LONG, policies);
    for _ in 0..3 {
        assert_eq!(get(&*store).await.unwrap_err().class, ErrorClass::PermissionDenied);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_folder_comes_later_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("below");
    let yaml = format!(
        "kind: Component\nmetadata: {{name: store}}\nspec:\n  type: state.sqlite\n  initTimeout: 1h\n  \
         metadata: [{{name: connectionString, value: '{}/state.db'}}]\n",
        below.display()
    );
    std::fs::write(folder.path().join("c.yaml"), &yaml).unwrap();
    let waiting = Registry::builtin().load(&[folder.path()], &App::default()).unwrap();
    let waiting = Arc::clone(&waiting.state_stores["store"]);
    let first = tokio::spawn(async move { in_time(waiting.set(first_write("value"))).await });
    let file = below.join("state.db").display().to_string();
    let impatient = support::store("state.sqlite", &[("connectionString", &file)]);
    unavailable(get(&*impatient).await);
    assert!(!first.is_finished());
    std::fs::create_dir(&below).unwrap();
    first.await.unwrap().unwrap();
    assert_eq!(support::get(&*impatient, "key").await.data, "value");
}
