//! Stores without room.

use host_abi::state::Operation;
use testbed::mounts::Mounts;
use testbed::redis::RedisServer;

use crate::support::{delete_request, get, set_request, store};
use crate::{in_time, unavailable};

fn upsert(key: &str, value: impl AsRef<[u8]>) -> Operation {
    Operation::Upsert(set_request(key, value))
}

#[tokio::test]
async fn a_full_redis_refuses_writes_whole_and_answers_reads() {
    let server = RedisServer::start();
    let store = store("state.redis", &[("redisHost", &server.host())]);
    store.set(set_request("one", "before")).await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    unavailable(in_time(store.set(set_request("one", "after"))).await);
    unavailable(in_time(store.transact(vec![upsert("two", "after"), Operation::Delete(delete_request("one"))])).await);
    assert_eq!(get(&*store, "one").await.data, "before");
    assert_eq!(get(&*store, "two").await.etag, None);
    // What makes room is done.
    store.transact(vec![Operation::Delete(delete_request("one")), upsert("two", "after")]).await.unwrap();
    assert_eq!((get(&*store, "one").await.etag, get(&*store, "two").await.data), (None, "after".into()));
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    store.set(set_request("one", "again")).await.unwrap();
}

#[test]
fn a_full_disk_refuses_writes_whole_and_answers_reads() {
    let (mounts, folder) = (Mounts::unshare().unwrap(), tempfile::tempdir().unwrap());
    mounts.small_disk(folder.path(), 1 << 20).unwrap();
    // The thread of the database sees what the one that starts it sees.
    mounts.within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let file = folder.path().join("state.db").display().to_string();
            let store = store("state.sqlite", &[("connectionString", &file)]);
            let large = vec![b'x'; 4 << 20];
            store.set(set_request("one", "before")).await.unwrap();
            unavailable(in_time(store.set(set_request("one", &large))).await);
            unavailable(in_time(store.transact(vec![upsert("one", "after"), upsert("two", &large)])).await);
            assert_eq!(get(&*store, "one").await.data, "before");
            assert_eq!(get(&*store, "two").await.etag, None);
            store.set(set_request("one", "after")).await.unwrap();
            assert_eq!(get(&*store, "one").await.data, "after");
        });
    });
}
