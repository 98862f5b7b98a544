//! A server that comes and goes, connections that break, and answers that do not come.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{GetRequest, GetResponse, Operation};
use testbed::postgresql::{PostgresqlServer, USER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{get, set_request};
use crate::{Store, Tables, class, first_write, sql, store, store_on, until, upsert, with_etag};

async fn read(store: &Store) -> Result<GetResponse, Error> {
    store.get(GetRequest { key: "z".into(), ..GetRequest::default() }).await
}

#[tokio::test]
async fn a_store_that_is_never_called_connects_to_nobody() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(store(&[("host", "127.0.0.1"), ("port", &port), ("user", USER)]));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_store_is_there_before_its_server_and_after_an_outage() {
    let mut server = PostgresqlServer::start();
    server.stop();
    let store = store_on(&server, &[]);
    let error = store.set(set_request("z", "early")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    let address = format!("component store: postgresql at {}: ", server.host());
    assert!(error.message.starts_with(&address) && error.message.contains("refused"), "{error}");
    server.restart();
    store.set(set_request("z", "in time")).await.unwrap();
    server.stop();
    for _ in 0..3 {
        assert_eq!(class(read(&store).await), Some(ErrorClass::Unavailable));
        assert_eq!(class(store.set(set_request("z", "lost")).await), Some(ErrorClass::Unavailable));
    }
    server.restart();
    store.set(first_write(set_request("y", "back"))).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "in time");
}

#[tokio::test]
async fn a_restart_between_two_calls_is_not_noticed() {
    let mut server = PostgresqlServer::start();
    let store = store_on(&server, &[]);
    store.set(set_request("z", "before")).await.unwrap();
    server.restart();
    assert_eq!(get(&*store, "z").await.data, "before");
    server.restart();
    store.transact(vec![upsert("z", "after"), upsert("y", "after")]).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "after");
}

/// A way to the server whose connections, once it is `cut`, end as soon as somebody uses them.
struct Proxy {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(server: &PostgresqlServer) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), cut: Arc::default() };
        let (server, cut) = (server.host(), Arc::clone(&proxy.cut));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                let born_after = cut.load(Ordering::Relaxed);
                tokio::spawn(forward(client, server, born_after, Arc::clone(&cut)));
            }
        });
        proxy
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, born_after: bool, cut: Arc<AtomicBool>) {
    let (mut asked, mut answered) = ([0; 8192], [0; 8192]);
    loop {
        let sent = tokio::select! {
            Ok(count @ 1..) = client.read(&mut asked) => match cut.load(Ordering::Relaxed) && !born_after {
                true => return,
                false => server.write_all(&asked[..count]).await,
            },
            Ok(count @ 1..) = server.read(&mut answered) => client.write_all(&answered[..count]).await,
            else => return,
        };
        if sent.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_conditional_write_goes_out_on_a_connection_that_is_alive() {
    let tables = Tables::new();
    let proxy = Proxy::start(&tables.server).await;
    let store = tables.store(&[("port", &proxy.port.to_string())]);
    store.set(set_request("z", "one")).await.unwrap();
    let etag = get(&*store, "z").await.etag.unwrap();
    proxy.cut.store(true, Ordering::Relaxed);
    // Long enough for the connection not to be trusted any more.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    store.set(with_etag(&etag, set_request("z", "two"))).await.unwrap();
    assert_eq!(get(&*store, "z").await.data, "two");
}

#[tokio::test]
async fn a_server_that_keeps_silent_is_given_up_after_the_timeout() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let store = store(&[("host", "127.0.0.1"), ("port", &port), ("user", USER), ("timeout", "1s")]);
    let error = store.set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.ends_with("no answer within 1s"), "{error}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up_and_cancelled() {
    let tables = Tables::new();
    let store = tables.store(&[("timeout", "1s")]);
    store.set(set_request("z", "one")).await.unwrap();
    let lock = tables.lock("z").await;
    assert_eq!(class(store.set(set_request("z", "two")).await), Some(ErrorClass::Unavailable));
    until(async || tables.sessions().await == 0).await;
    sql(&lock, "COMMIT").await;
    assert_eq!(get(&*store, "z").await.data, "one");
}

#[tokio::test]
async fn a_transaction_whose_connection_breaks_leaves_nothing() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.set(set_request("held", "one")).await.unwrap();
    let lock = tables.lock("held").await;
    let transaction = tokio::spawn({
        let store = Arc::clone(&store);
        let absent = Operation::Upsert(first_write(set_request("z", "value")));
        async move { store.transact(vec![absent, upsert("held", "two")]).await }
    });
    tables.waiting(1).await;
    tables.break_sessions().await;
    let error = transaction.await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    sql(&lock, "COMMIT").await;
    assert_eq!(get(&*store, "z").await, GetResponse::default());
    assert_eq!(get(&*store, "held").await.data, "one");
}

#[tokio::test]
async fn a_set_whose_connection_breaks_is_sent_again() {
    let tables = Tables::new();
    let store = tables.store(&[]);
    store.set(set_request("z", "one")).await.unwrap();
    let lock = tables.lock("z").await;
    let write = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.set(set_request("z", "two")).await }
    });
    tables.waiting(1).await;
    tables.break_sessions().await;
    sql(&lock, "COMMIT").await;
    write.await.unwrap().unwrap();
    assert_eq!(get(&*store, "z").await.data, "two");
}
