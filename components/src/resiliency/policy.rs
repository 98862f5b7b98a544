//! The policies of one component, at work.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use tokio::time;

use super::circuit_breaker::{CircuitBreaker, Outcome, Refusal, Settings};
use super::retry::Retry;

/// One attempt at a call.
pub(crate) type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// What another attempt does where the one before it had its effect and its answer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing that is not there already.
    Harmless,
    /// It is refused, wrongly, or does it twice.
    Harmful,
}

impl Repeat {
    /// Whether another attempt may follow the one that failed so.
    pub(crate) fn may_follow(self, error: &Error) -> bool {
        is_trouble(error) && (self == Self::Harmless || error.is_without_effect())
    }
}

/// Whether the component is not at work, and another attempt may find it so. Every other error is an answer.
pub(crate) fn is_trouble(error: &Error) -> bool {
    error.class == ErrorClass::Unavailable
}

/// A time-out for each attempt, a circuit breaker that counts the attempts, and retries around both, as in
/// dapr/dapr `pkg/resiliency/policy.go`.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(super) timeout: Option<Duration>,
    pub(super) retry: Option<Retry>,
    pub(super) breaker: Option<CircuitBreaker>,
}

impl Policy {
    pub(super) fn new(
        component: &str,
        timeout: Option<Duration>,
        retry: Option<Retry>,
        breaker: Option<Arc<Settings>>,
    ) -> Self {
        let breaker = breaker.map(|settings| CircuitBreaker::new(component, settings));
        Self { timeout, retry, breaker }
    }

    /// Whether there is nothing to do but the call.
    pub(crate) fn is_none(&self) -> bool {
        self.timeout.is_none() && self.retry.is_none() && self.breaker.is_none()
    }

    /// The answer of the last attempt. A breaker that lets none pass ends the retries.
    pub(crate) async fn run<'a, T>(
        &self,
        repeat: Repeat,
        attempt: impl Fn() -> Attempt<'a, T> + Sync,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let mut backoff = self.retry.as_ref().map(Retry::backoff);
        loop {
            let error = match self.pass(&attempt).await? {
                Err(error) if repeat.may_follow(&error) => error,
                answer => return answer,
            };
            let pause = backoff.as_mut().and_then(|backoff| backoff.next(began.elapsed(), fastrand::f64()));
            let Some(pause) = pause else { return Err(error) };
            time::sleep(pause).await;
        }
    }

    /// One attempt, if the breaker lets it pass.
    async fn pass<'a, T>(&self, attempt: impl Fn() -> Attempt<'a, T>) -> Result<Result<T, Error>, Refusal> {
        let permit = self.breaker.as_ref().map(CircuitBreaker::admit).transpose()?;
        let answer = self.within_timeout(attempt()).await;
        if let Some(permit) = permit {
            let failed = answer.as_ref().is_err_and(is_trouble);
            permit.end(if failed { Outcome::Failure } else { Outcome::Success });
        }
        Ok(answer)
    }

    async fn within_timeout<T>(&self, attempt: Attempt<'_, T>) -> Result<T, Error> {
        let Some(timeout) = self.timeout else { return attempt.await };
        time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
            let message = format!("no answer within {timeout:?}, the time-out of its policy");
            Err(Error::new(ErrorClass::Unavailable, message))
        })
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorClass::Unavailable, refusal.to_string()).without_effect()
    }
}
