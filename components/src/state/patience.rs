//! What becomes of a call while the store does not answer: the component's `initTimeout`, and its policies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use host_abi::error::Error;
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};
use tokio::time;

use crate::resiliency::{Attempt, Policy, Repeat, is_trouble};

/// Between the attempts at a store that has not answered yet.
const PAUSE: Duration = Duration::from_millis(100);

/// A store whose calls are tried again, as its policies have it and, until it answered once, for `initTimeout` from
/// the first call.
pub(crate) struct PatientStore {
    store: Arc<dyn StateStore>,
    policy: Policy,
    init_timeout: Duration,
    first_call: OnceLock<Instant>,
    /// The store answered, or its time for that is over.
    is_settled: AtomicBool,
}

impl PatientStore {
    pub(crate) fn new(store: Arc<dyn StateStore>, policy: Policy, init_timeout: Duration) -> Self {
        Self { store, policy, init_timeout, first_call: OnceLock::new(), is_settled: AtomicBool::new(false) }
    }

    /// What is left of the time to answer for the first time.
    fn init_time_left(&self) -> Option<Duration> {
        if self.is_settled.load(Ordering::Relaxed) {
            return None;
        }
        let elapsed = self.first_call.get_or_init(Instant::now).elapsed();
        let left = self.init_timeout.checked_sub(elapsed).filter(|left| !left.is_zero());
        if left.is_none() {
            self.settle();
        }
        left
    }

    fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    async fn run<'a, R, T>(
        &self,
        repeat: Repeat,
        request: R,
        call: impl Fn(R) -> Attempt<'a, T> + Send + Sync,
    ) -> Result<T, Error>
    where
        R: Clone + Send + Sync,
    {
        if self.init_time_left().is_none() && self.policy.is_none() {
            return call(request).await;
        }
        let attempt = || call(request.clone());
        loop {
            let answer = self.policy.run(repeat, attempt).await;
            let Some(error) = answer.as_ref().err().filter(|error| is_trouble(error)) else {
                self.settle();
                return answer;
            };
            match self.init_time_left() {
                Some(left) if repeat.may_follow(error) => time::sleep(PAUSE.min(left)).await,
                _ => return answer,
            }
        }
    }
}

#[async_trait]
impl StateStore for PatientStore {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        self.run(Repeat::Harmless, request, |request| self.store.get(request)).await
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.run(repeat_of(request.is_conditional()), request, |request| self.store.set(request)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.run(repeat_of(request.etag.is_some()), request, |request| self.store.delete(request)).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let repeat = repeat_of(operations.iter().any(Operation::is_conditional));
        self.run(repeat, operations, |operations| self.store.transact(operations)).await
    }
}

fn repeat_of(is_conditional: bool) -> Repeat {
    if is_conditional { Repeat::Harmful } else { Repeat::Harmless }
}
