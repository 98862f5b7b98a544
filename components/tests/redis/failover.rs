//! Sentinels, and the master that they name.

use std::net::TcpListener;
use std::sync::Arc;

use host_abi::error::ErrorClass;
use host_abi::state::StateStore;
use testbed::redis::WatchedRedis;

use crate::counter::{Counter, Writes, count_through};
use crate::outages::{IMPATIENT, goes_out_once};
use crate::support::{get, set_request, store};
use crate::{class, hash, strong, with_etag};

fn store_at(hosts: &str, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let metadata = [("redisHost", hosts), ("failover", "true"), ("sentinelMasterName", "it")];
    store("state.redis", &[&metadata, more].concat())
}

#[tokio::test]
async fn the_master_is_the_one_that_a_sentinel_names() {
    let watched = WatchedRedis::start();
    // The others are away, or keep silent.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let hosts = format!("127.0.0.1:1,{},{}", silent.local_addr().unwrap(), watched.sentinel.host());
    let store = store_at(&hosts, &[("redisDB", "3")]);
    store.set(set_request("z", "value")).await.unwrap();
    assert_eq!(get(&*store, "z").await.etag.as_deref(), Some("1"));
    assert!(watched.servers[0].info("keyspace").contains("db3:keys=1"));
}

#[tokio::test]
async fn a_conditional_write_without_an_answer_is_not_sent_again() {
    let watched = WatchedRedis::start();
    goes_out_once(&*store_at(&watched.sentinel.host(), &IMPATIENT), &watched.servers[0]).await;
}

/// Counts on a key whose master falls.
pub(crate) async fn count_through_a_fall(watched: &mut WatchedRedis, store: Arc<dyn StateStore>, writes: Writes) {
    let fall = |watched: &mut WatchedRedis| {
        watched.servers[0].stop();
        watched.await_other_master(0);
    };
    count_through(Counter::new(store, "z", writes), watched, |watched| &watched.servers[0], fall).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_loses_nothing_and_writes_nothing_twice() {
    let mut watched = WatchedRedis::start();
    let store = store_at(&watched.sentinel.host(), &[]);
    count_through_a_fall(&mut watched, store, Writes::Sets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_in_the_middle_of_transactions_leaves_each_whole_or_undone() {
    let mut watched = WatchedRedis::start();
    let store = store_at(&watched.sentinel.host(), &[]);
    count_through_a_fall(&mut watched, store, Writes::Transactions).await;
}

#[tokio::test]
async fn a_master_that_lives_on_as_a_replica_is_left() {
    let watched = WatchedRedis::start();
    let store = store_at(&watched.sentinel.host(), &[]);
    store.set(strong(set_request("z", "one"))).await.unwrap();
    watched.swap();
    store.set(with_etag("1", set_request("z", "two"))).await.unwrap();
    assert_eq!(hash(&watched.servers[1], "z"), ["data", "two", "version", "2"]);
    assert_eq!(get(&*store, "z").await.data, "two");
}

#[tokio::test]
async fn a_name_that_no_sentinel_knows_is_told() {
    let watched = WatchedRedis::start();
    let store = store_at(&watched.sentinel.host(), &[("sentinelMasterName", "another")]);
    let error = store.set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("no master of this name"), "{error}");
}

#[tokio::test]
async fn sentinels_have_a_password_of_their_own() {
    let watched = WatchedRedis::start();
    watched.sentinel.command::<()>(&["ACL", "SETUSER", "guard", "on", ">hunter2", "+@all"]);
    watched.sentinel.command::<()>(&["ACL", "SETUSER", "default", "off"]);
    let login = [("sentinelUsername", "guard"), ("sentinelPassword", "hunter2")];
    store_at(&watched.sentinel.host(), &login).set(set_request("z", "value")).await.unwrap();
    for wrong in [&[("redisUsername", "guard"), ("redisPassword", "hunter2")][..], &[("sentinelPassword", "hunter3")]] {
        let refused = store_at(&watched.sentinel.host(), wrong).set(set_request("z", "value")).await;
        assert_eq!(class(refused), Some(ErrorClass::PermissionDenied));
    }
}
