//! State stores under trouble: servers that are down, late, slow, full or forgetful, and the policies of Resiliency
//! documents.
#![cfg(all(feature = "redis", feature = "sqlite"))]

mod documents;
mod full;
mod init;
#[path = "../support/log.rs"]
mod log;
mod lost_answers;
mod outages;
mod policies;
mod servers;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use components::{App, Components, Faults, Registry};
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{Concurrency, GetRequest, GetResponse, SetRequest, StateStore, WriteOptions};
use tokio::time;

/// No promise: a test that waits for so long waits in vain.
const IN_VAIN: Duration = Duration::from_secs(60);

/// The components of these documents.
fn load(documents: &str) -> Result<Components, Faults> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.yaml"), documents).unwrap();
    Registry::builtin().load(&[folder.path()], &App::default())
}

/// A store on this Redis, whose own client tries nothing again and waits for a minute, with these fields of a
/// Resiliency's `policies`. Its targets' names are `own`.
fn redis(host: &str, init_timeout: &str, policies: &str) -> Arc<dyn StateStore> {
    let documents = format!(
        "
kind: Component
metadata: {{name: store}}
spec:
  type: state.redis
  initTimeout: {init_timeout}
  metadata:
  - {{name: redisHost, value: '{host}'}}
  - {{name: redisMaxRetries, value: -1}}
  - {{name: readTimeout, value: 60s}}
---
kind: Resiliency
metadata: {{name: policies}}
spec:
  policies: {{{policies}}}
"
    );
    Arc::clone(&load(&documents).unwrap().state_stores["store"])
}

async fn get(store: &dyn StateStore) -> Result<GetResponse, Error> {
    in_time(store.get(GetRequest { key: "key".to_owned(), ..GetRequest::default() })).await
}

async fn set(store: &dyn StateStore, value: &str) -> Result<(), Error> {
    in_time(store.set(support::set_request("key", value))).await
}

fn first_write(value: &str) -> SetRequest {
    let options = WriteOptions { concurrency: Concurrency::FirstWrite, ..WriteOptions::default() };
    SetRequest { options, ..support::set_request("key", value) }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    time::timeout(IN_VAIN, work).await.expect("an answer")
}

/// Until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    in_time(async {
        while !is_so() {
            time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn unavailable<T>(answer: Result<T, Error>) -> String {
    let error = answer.err().expect("an error");
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    error.message
}
