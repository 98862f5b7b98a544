//! Keeps calls from a component that fails, until it may have recovered.
//!
//! What sony/gobreaker does, which Dapr uses: *closed*, all calls pass and are counted, and the counts begin anew every
//! `interval`; *open*, none passes until `timeout` is over; *half-open*, `maxRequests` pass, of which the first
//! failure opens it again, and as many successes as that close it. A call that ends after the counts began anew does
//! not count. Source: sony/gobreaker `gobreaker.go`, dapr/dapr `pkg/resiliency/breaker/circuitbreaker.go`.

mod machine;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use self::machine::Machine;
pub(super) use self::machine::{Counts, Outcome, Refusal};
use super::trip::Trip;
use super::{InvalidPolicy, document, optional_duration};
use crate::duration::GoDuration;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// What a named policy says; every component has a breaker of its own made of it.
#[derive(Debug)]
pub(super) struct Settings {
    max_requests: i64,
    /// None never clears the counts.
    interval: Option<Duration>,
    timeout: Duration,
    trip: Trip,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_requests: 1, interval: None, timeout: DEFAULT_TIMEOUT, trip: Trip::default() }
    }
}

impl Settings {
    pub(super) fn new(written: &document::CircuitBreaker) -> Result<Self, InvalidPolicy> {
        let positive = |field, text| {
            let duration = optional_duration(field, text);
            duration.map(|duration| duration.and_then(GoDuration::positive))
        };
        Ok(Self {
            max_requests: written.max_requests.unwrap_or_default().max(1).into(),
            interval: positive("interval", &written.interval)?,
            timeout: positive("timeout", &written.timeout)?.unwrap_or(DEFAULT_TIMEOUT),
            trip: Trip::new(written.trip.expose())?,
        })
    }
}

/// The breaker of one component, shared by all its guests.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    component: String,
    machine: Mutex<Machine>,
}

impl CircuitBreaker {
    pub(super) fn new(component: &str, settings: Arc<Settings>) -> Self {
        Self { component: component.to_owned(), machine: Mutex::new(Machine::new(settings, Instant::now())) }
    }

    pub(super) fn admit(&self) -> Result<Permit<'_>, Refusal> {
        let generation = self.advance(|machine, now| machine.admit(now))?;
        Ok(Permit { breaker: self, generation: Some(generation) })
    }

    fn advance<T>(&self, step: impl FnOnce(&mut Machine, Instant) -> T) -> T {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let before = machine.state_name();
        let answer = step(&mut machine, Instant::now());
        let now = machine.state_name();
        if now != before {
            tracing::info!(component = self.component, "the circuit breaker was {before} and is {now}");
        }
        answer
    }
}

/// A call that passed. Dropped before its end, it does not count.
pub(super) struct Permit<'a> {
    breaker: &'a CircuitBreaker,
    generation: Option<u64>,
}

impl Permit<'_> {
    pub(super) fn end(mut self, outcome: Outcome) {
        if let Some(generation) = self.generation.take() {
            self.breaker.advance(|machine, now| machine.end(generation, outcome, now));
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(generation) = self.generation {
            self.breaker.advance(|machine, _| machine.withdraw(generation));
        }
    }
}
