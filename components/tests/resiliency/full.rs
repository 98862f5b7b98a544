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

/// Nothing that a database could make smaller.
#[cfg(feature = "postgresql")]
fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state: u32 = 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[cfg(feature = "postgresql")]
#[test]
fn a_postgresql_without_room_refuses_writes_whole_and_answers_reads_until_there_is_some() {
    use testbed::postgresql::{self, PostgresqlServer};

    let (mounts, folder) = (Mounts::unshare().unwrap(), tempfile::tempdir().unwrap());
    mounts.small_disk(folder.path(), 16 << 20).unwrap();
    let [tables, ballast] = ["tables", "ballast"].map(|name| folder.path().join(name));
    // The server sees what the thread that starts it sees.
    let server = mounts.within(|| {
        std::fs::create_dir(&tables).unwrap();
        postgresql::give_away(&tables);
        std::fs::write(&ballast, vec![0; 12 << 20]).unwrap();
        PostgresqlServer::start()
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = server.connection_string();
        let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let tablespace = format!("CREATE TABLESPACE small LOCATION '{}'", tables.display());
        client.batch_execute(&tablespace).await.unwrap();
        let address = format!("{address} options='-c default_tablespace=small'");
        let store = store("state.postgresql v2", &[("connectionString", &address)]);
        let large = incompressible(6 << 20);
        store.set(set_request("one", "before")).await.unwrap();
        let message = unavailable(in_time(store.set(set_request("one", &large))).await);
        assert!(message.contains("53100"), "{message}");
        unavailable(in_time(store.transact(vec![upsert("one", "after"), upsert("two", &large)])).await);
        assert_eq!(get(&*store, "one").await.data, "before");
        assert_eq!(get(&*store, "two").await.etag, None);
        mounts.within(|| std::fs::remove_file(&ballast).unwrap());
        store.transact(vec![upsert("one", "after"), upsert("two", &large)]).await.unwrap();
        assert_eq!(get(&*store, "one").await.data, "after");
        assert!(get(&*store, "two").await.data == large);
    });
}
