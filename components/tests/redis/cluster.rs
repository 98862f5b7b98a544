//! A cluster: keys of every slot, slots that move, masters that fall.

use std::sync::Arc;

use host_abi::error::ErrorClass;
use host_abi::state::{Operation, StateStore};
use testbed::redis::{RedisCluster, RedisServer};

use crate::counter::{Counter, Writes, count_through};
use crate::outages::{IMPATIENT, goes_out_once};
use crate::support::{delete_request, get, set_request, store};
use crate::{class, hash, strong, with_etag};

fn store_on(cluster: &RedisCluster, more: &[(&str, &str)]) -> Arc<dyn StateStore> {
    // One server is enough to find the others.
    let host = cluster.servers[1].host();
    store("state.redis", &[&[("redisHost", host.as_str()), ("redisType", "cluster")], more].concat())
}

fn upsert(key: &str, value: &str) -> Operation {
    Operation::Upsert(set_request(key, value))
}

#[tokio::test]
async fn every_key_is_kept_by_the_master_of_its_slot() {
    let cluster = RedisCluster::start(0);
    // Which a cluster has not, and Dapr does not mind.
    let store = store_on(&cluster, &[("redisDB", "3")]);
    for key in (0..30).map(|number| number.to_string()) {
        store.set(with_etag("1", set_request(&key, &key))).await.unwrap();
        assert_eq!(get(&*store, &key).await.data, key);
        assert_eq!(hash(&cluster.servers[cluster.master_of(&key)], &key), ["data", key.as_str(), "version", "1"]);
    }
    for server in &cluster.servers {
        assert!(server.command::<i64>(&["DBSIZE"]) > 0);
    }
}

#[tokio::test]
async fn a_transaction_is_of_one_slot_and_others_write_nothing() {
    let cluster = RedisCluster::start(0);
    let store = store_on(&cluster, &[]);
    let refused = store.transact(vec![upsert("one", "value"), upsert("two", "value")]).await.unwrap_err();
    assert_eq!(refused.class, ErrorClass::InvalidArgument);
    assert!(refused.message.contains("hash tag"), "{refused}");
    let sizes: i64 = cluster.servers.iter().map(|server| server.command::<i64>(&["DBSIZE"])).sum();
    assert_eq!(sizes, 0);
    store.transact(vec![upsert("{order 7}one", "value"), upsert("{order 7}two", "value")]).await.unwrap();
    assert_eq!(get(&*store, "{order 7}two").await.data, "value");
}

/// The way of a key's slot from one server to another.
struct Move<'a> {
    slot: String,
    from: &'a RedisServer,
    to: &'a RedisServer,
    to_id: String,
}

impl<'a> Move<'a> {
    /// From here on the former master answers `ASK` for keys that it has not any more.
    fn begin(cluster: &'a RedisCluster, key: &str) -> Self {
        let from = cluster.master_of(key);
        let (from, to) = (&cluster.servers[from], &cluster.servers[(from + 1) % 3]);
        let slot = from.command::<u16>(&["CLUSTER", "KEYSLOT", key]).to_string();
        let id = |server: &RedisServer| server.command::<String>(&["CLUSTER", "MYID"]);
        to.command::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        from.command::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
        Self { slot, from, to, to_id: id(to) }
    }

    fn carry(&self, key: &str) {
        self.from.command::<()>(&["MIGRATE", "127.0.0.1", &self.to.port().to_string(), key, "0", "5000"]);
    }

    /// From here on it answers `MOVED`.
    fn end(&self) {
        for server in [self.to, self.from] {
            server.command::<()>(&["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to_id]);
        }
    }
}

#[tokio::test]
async fn a_key_is_found_on_its_way_to_another_server_and_there() {
    let cluster = RedisCluster::start(0);
    let store = store_on(&cluster, &[]);
    store.set(set_request("{z}one", "1")).await.unwrap();
    store.set(set_request("{z}two", "1")).await.unwrap();
    let way = Move::begin(&cluster, "{z}one");
    way.carry("{z}one");
    // The one is there already, the other is not, and a third was nowhere yet.
    for key in ["{z}one", "{z}two"] {
        assert_eq!(get(&*store, key).await.data, "1", "{key}");
        store.set(with_etag("1", set_request(key, "2"))).await.unwrap();
        store.set(strong(with_etag("2", set_request(key, "3")))).await.unwrap();
    }
    store.set(set_request("{z}three", "new")).await.unwrap();
    // Half of its keys are elsewhere, which no script can mend.
    let split = store.transact(vec![upsert("{z}one", "x"), upsert("{z}two", "x")]).await;
    assert_eq!(class(split), Some(ErrorClass::Unavailable));
    way.carry("{z}two");
    way.end();
    for key in ["{z}one", "{z}two"] {
        assert_eq!(hash(way.to, key), ["data", "3", "version", "3"], "{key}");
        store.set(with_etag("3", set_request(key, "4"))).await.unwrap();
        assert_eq!(hash(way.to, key), ["data", "4", "version", "4"], "{key}");
    }
    store.transact(vec![Operation::Delete(delete_request("{z}one")), upsert("{z}two", "5")]).await.unwrap();
    assert_eq!(get(&*store, "{z}two").await.data, "5");
}

#[tokio::test]
async fn a_conditional_write_without_an_answer_is_not_sent_again() {
    let cluster = RedisCluster::start(0);
    goes_out_once(&*store_on(&cluster, &IMPATIENT), &cluster.servers[cluster.master_of("z")]).await;
}

/// Counts on a key whose master falls.
pub(crate) async fn count_through_a_fall(cluster: &mut RedisCluster, store: Arc<dyn StateStore>, writes: Writes) {
    // Slot 5061: the first server's, which has a replica.
    let key = "bar";
    assert_eq!(cluster.master_of(key), 0);
    let fall = |cluster: &mut RedisCluster| {
        cluster.servers[0].stop();
        cluster.await_master(3);
    };
    count_through(Counter::new(store, key, writes), cluster, |cluster| &cluster.servers[0], fall).await;
    assert_eq!(cluster.master_of(key), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_loses_nothing_and_writes_nothing_twice() {
    let mut cluster = RedisCluster::start(1);
    let store = store_on(&cluster, &[]);
    count_through_a_fall(&mut cluster, store, Writes::Sets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_in_the_middle_of_transactions_leaves_each_whole_or_undone() {
    let mut cluster = RedisCluster::start(1);
    let store = store_on(&cluster, &[]);
    count_through_a_fall(&mut cluster, store, Writes::Transactions).await;
}

#[tokio::test]
async fn a_cluster_that_was_away_is_found_again() {
    let mut cluster = RedisCluster::start(0);
    let store = store_on(&cluster, &[]);
    store.set(set_request("z", "before")).await.unwrap();
    cluster.servers.iter_mut().for_each(RedisServer::stop);
    for request in [set_request("z", "lost"), with_etag("1", set_request("z", "lost"))] {
        assert_eq!(class(store.set(request).await), Some(ErrorClass::Unavailable));
    }
    cluster.servers.iter_mut().for_each(RedisServer::restart);
    cluster.await_health();
    store.set(with_etag("1", set_request("z", "after"))).await.unwrap();
    assert_eq!(get(&*store, "z").await.etag.as_deref(), Some("1"));
}
