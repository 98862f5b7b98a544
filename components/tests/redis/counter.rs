//! A guest that counts, and checks with every step that nothing it wrote was lost, written twice or written half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{GetRequest, GetResponse, Operation, SetRequest, StateStore};

use testbed::redis::RedisServer;

use crate::support::set_request;
use crate::{strong, with_etag};

/// How a step is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    Sets,
    /// Of the key and of a copy, in the same slot of a cluster.
    Transactions,
}

pub(crate) struct Counter {
    store: Arc<dyn StateStore>,
    key: &'static str,
    writes: Writes,
    /// What was answered to be written.
    count: u64,
    /// Whether a write after that was not answered.
    in_doubt: bool,
    /// How many calls found no server.
    unavailable: usize,
}

impl Counter {
    pub(crate) fn new(store: Arc<dyn StateStore>, key: &'static str, writes: Writes) -> Self {
        Self { store, key, writes, count: 0, in_doubt: false, unavailable: 0 }
    }

    fn copy(&self) -> String {
        format!("{{{}}}copy", self.key)
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
        let item = match self.read().await {
            Ok(item) => item,
            Err(error) => {
                assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
                return false;
            }
        };
        let there = number(&item);
        let is_known = there == self.count || self.in_doubt && there == self.count + 1;
        assert!(is_known, "{there} after {}, in doubt: {}", self.count, self.in_doubt);
        self.count = there;
        self.in_doubt = false;
        self.write(there + 1, item.etag).await
    }

    /// The key, when its copy was seen to be the same.
    async fn read(&self) -> Result<GetResponse, Error> {
        let item = self.get(self.key).await?;
        if self.writes == Writes::Sets {
            return Ok(item);
        }
        let copy = number(&self.get(&self.copy()).await?);
        // What was in doubt may have been done in between, as a whole.
        let item = if copy == number(&item) { item } else { self.get(self.key).await? };
        assert_eq!(number(&item), copy, "a half of a transaction");
        Ok(item)
    }

    async fn get(&self, key: &str) -> Result<GetResponse, Error> {
        self.store.get(GetRequest { key: key.to_owned(), ..GetRequest::default() }).await
    }

    async fn write(&mut self, next: u64, etag: Option<String>) -> bool {
        let request = strong(SetRequest { etag, ..set_request(self.key, next.to_string()) });
        let written = match self.writes {
            Writes::Sets => self.store.set(request).await,
            Writes::Transactions => {
                let copy = strong(set_request(&self.copy(), next.to_string()));
                self.store.transact([request, copy].map(Operation::Upsert).to_vec()).await
            }
        };
        match written {
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

/// Zero where there is none yet.
fn number(item: &GetResponse) -> u64 {
    std::str::from_utf8(&item.data).unwrap().parse().unwrap_or(0)
}

/// Counts while `fall` has a master fall, and a while after another one has taken its place: from then on every call
/// finds it.
pub(crate) async fn count_through<S>(
    counter: Counter,
    servers: &mut S,
    master: fn(&S) -> &RedisServer,
    fall: fn(&mut S),
) {
    let key = counter.key;
    let enough = Arc::new(AtomicBool::new(false));
    let counting = tokio::spawn(counter.count_until(Arc::clone(&enough)));
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
    let mut counter = Counter::new(Arc::clone(&store), "z", Writes::Sets);
    counter.count(3).await;
    let etag = crate::get(&*store, "z").await.etag.unwrap();
    store.set(with_etag(&etag, set_request("z", "7"))).await.unwrap();
    counter.count(1).await;
}

#[tokio::test]
#[should_panic(expected = "a half of a transaction")]
async fn a_counter_notices_a_transaction_that_was_done_half() {
    let store = crate::store("state.in-memory", &[]);
    let mut counter = Counter::new(Arc::clone(&store), "z", Writes::Transactions);
    counter.count(3).await;
    let etag = crate::get(&*store, "z").await.etag.unwrap();
    store.set(with_etag(&etag, set_request("z", "4"))).await.unwrap();
    counter.count(1).await;
}
