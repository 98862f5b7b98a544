//! A guest that counts, and checks with every step that nothing it wrote was lost or written twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_abi::error::ErrorClass;
use host_abi::state::{GetRequest, SetRequest, StateStore};

use testbed::redis::RedisServer;

use crate::support::set_request;
use crate::{strong, with_etag};

pub(crate) struct Counter {
    store: Arc<dyn StateStore>,
    key: &'static str,
    /// What was answered to be written.
    count: u64,
    /// Whether a write after that was not answered.
    in_doubt: bool,
    /// How many calls found no server.
    unavailable: usize,
}

impl Counter {
    pub(crate) fn new(store: Arc<dyn StateStore>, key: &'static str) -> Self {
        Self { store, key, count: 0, in_doubt: false, unavailable: 0 }
    }

    /// Until so many more steps were answered. The writes are strong: others a master may lose with its life.
    pub(crate) async fn count(&mut self, steps: usize) {
        let mut done = 0;
        while done < steps {
            if self.step().await {
                done += 1;
            } else {
                self.unavailable += 1;
                assert!(self.unavailable < 1000, "the servers do not come back");
            }
        }
    }

    /// Until somebody says that it is enough.
    pub(crate) async fn count_until(mut self, enough: Arc<AtomicBool>) -> Self {
        while !enough.load(Ordering::Relaxed) {
            self.count(1).await;
        }
        self
    }

    /// False where a server was not there.
    async fn step(&mut self) -> bool {
        let read = GetRequest { key: self.key.to_owned(), ..GetRequest::default() };
        let item = match self.store.get(read).await {
            Ok(item) => item,
            Err(error) => {
                assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
                return false;
            }
        };
        let there = std::str::from_utf8(&item.data).unwrap().parse().unwrap_or(0);
        let is_known = there == self.count || self.in_doubt && there == self.count + 1;
        assert!(is_known, "{there} after {}, in doubt: {}", self.count, self.in_doubt);
        self.count = there;
        self.in_doubt = false;
        self.write(there + 1, item.etag).await
    }

    async fn write(&mut self, next: u64, etag: Option<String>) -> bool {
        let request = SetRequest { etag, ..set_request(self.key, next.to_string()) };
        match self.store.set(strong(request)).await {
            Ok(()) => {
                self.count = next;
                true
            }
            // A mismatch would be a write that was sent twice.
            Err(error) => {
                assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
                self.in_doubt = true;
                false
            }
        }
    }
}

/// Counts while `fall` has a master fall, and a while after another one has taken its place: from then on every call
/// finds it.
pub(crate) async fn count_through<S>(
    store: Arc<dyn StateStore>,
    key: &'static str,
    servers: &mut S,
    master: fn(&S) -> &RedisServer,
    fall: fn(&mut S),
) {
    let enough = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(Counter::new(store, key).count_until(Arc::clone(&enough)));
    let deadline = Instant::now() + Duration::from_secs(10);
    while master(servers).command::<Option<u64>>(&["HGET", key, "data"]) < Some(50) {
        assert!(Instant::now() < deadline, "nobody counts");
    }
    fall(servers);
    enough.store(true, Ordering::Relaxed);
    let mut counter = counting.await.unwrap();
    let unavailable = counter.unavailable;
    assert!(unavailable > 0, "nobody noticed");
    counter.count(50).await;
    assert_eq!(counter.unavailable, unavailable);
}

#[tokio::test]
#[should_panic(expected = "7 after 3")]
async fn a_counter_notices_what_it_did_not_write() {
    let store = crate::store("state.in-memory", &[]);
    let mut counter = Counter::new(Arc::clone(&store), "z");
    counter.count(3).await;
    let etag = crate::get(&*store, "z").await.etag.unwrap();
    store.set(with_etag(&etag, set_request("z", "7"))).await.unwrap();
    counter.count(1).await;
}
