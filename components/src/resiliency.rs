//! Dapr's Resiliency documents: time-outs, retries and circuit breakers for the calls to components.
//!
//! They lie in the files and folders of the Component documents. Those whose `scopes` admit the app are put together
//! in the order of the files: policies and targets go by name, and of two of one name the later counts, whole. A name
//! that a target has and no policy, a malformed duration and a condition that could never hold are faults.
//!
//! Honoured, as Dapr does:
//! - `policies.timeouts`, for each attempt; zero and below are none. A bare integer is milliseconds, here and below.
//! - `policies.retries`: `policy` `constant` (also without one) with `duration` (5 s), or `exponential` from 500 ms by
//!   half as much again up to `maxInterval` (60 s), each half as long to half as long again, for 15 minutes;
//!   `maxRetries`, below zero or without one for ever.
//! - `policies.circuitBreakers`: `maxRequests` (1), `interval` (for ever), `timeout` (60 s), and `trip`, a condition in
//!   CEL over `requests`, `totalSuccesses`, `totalFailures`, `consecutiveSuccesses` and `consecutiveFailures`
//!   (`consecutiveFailures > 5`).
//! - `targets.components.<name>.outbound`: `timeout`, `retry`, `circuitBreaker`. The time-out is within the breaker,
//!   which counts every attempt, and the breaker within the retries, which end when it lets none pass.
//! - For a component that is no target: the policies named `DefaultStatestoreComponentOutboundRetryPolicy`,
//!   `DefaultComponentOutboundRetryPolicy`, `DefaultComponentRetryPolicy` and `DefaultRetryPolicy`, the first that is
//!   there, and the same with `TimeoutPolicy` and `CircuitBreakerPolicy`. There are no built-in ones for components.
//!
//! Read without effect: `targets.apps` and `targets.actors`, with a warning; `matching` (its codes are those of calls
//! between apps); and `targets.components.<name>.inbound`, whose policies must exist, until there are components that
//! call the guest.
//!
//! Unlike Dapr, which takes any error of a component for a failure: one is only what is
//! [unavailable](host_abi::error::ErrorClass::Unavailable). All else is the answer of a component that is at work, and
//! is neither tried again nor counted by a breaker. And no write is tried again that might be done twice:
//! `docs/decisions/0006-writes-are-not-repeated.md`.
//!
//! Source: dapr/dapr `pkg/resiliency/resiliency.go`.

mod circuit_breaker;
mod document;
mod policy;
mod retry;
mod trip;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::circuit_breaker::Settings;
pub(crate) use self::document::Document;
use self::document::PolicyNames;
pub(crate) use self::policy::{Attempt, Policy, Repeat, is_trouble};
use self::retry::Retry;
use crate::app::App;
use crate::duration::GoDuration;
use crate::manifest::{Faults, Place, Problem, Scalar};

/// What a bare integer counts.
const BARE_UNIT: Duration = Duration::from_millis(1);
/// What names the default policies of state stores, the most special first.
const STATE_STORE_DEFAULTS: [&str; 4] = ["StatestoreComponentOutbound", "ComponentOutbound", "Component", ""];

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("must be a duration such as `500ms` or `5s`")]
    Timeout,
    #[error("`{0}` must be a duration such as `500ms` or `5s`")]
    Duration(&'static str),
    #[error("`policy` must be `constant` or `exponential`")]
    Backoff,
    #[error("`trip` is no condition: {0}")]
    Trip(String),
}

impl InvalidPolicy {
    /// In one line.
    fn trip(reason: &dyn fmt::Display) -> Self {
        Self::Trip(reason.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

fn parse_duration(text: &Scalar) -> Option<GoDuration> {
    GoDuration::parse(text.expose(), BARE_UNIT)
}

/// None where nothing is written.
fn optional_duration(field: &'static str, text: &Scalar) -> Result<Option<GoDuration>, InvalidPolicy> {
    if text.expose().is_empty() {
        return Ok(None);
    }
    parse_duration(text).map(Some).ok_or(InvalidPolicy::Duration(field))
}

/// All policies and targets of one app.
#[derive(Default)]
pub(crate) struct Policies {
    /// None is a policy without a time-out.
    timeouts: BTreeMap<String, Option<Duration>>,
    retries: BTreeMap<String, Retry>,
    circuit_breakers: BTreeMap<String, Arc<Settings>>,
    components: BTreeMap<String, Target>,
}

struct Target {
    place: Place,
    outbound: PolicyNames,
    inbound: PolicyNames,
}

impl Policies {
    /// Puts the documents together that admit `app`.
    pub(crate) fn new(documents: Vec<(Place, Document)>, app: &App, faults: &mut Faults) -> Self {
        let mut policies = Self::default();
        for (place, document) in documents {
            if app.is_in_scope(document.scopes.as_deref().unwrap_or_default()) {
                policies.add(&place, document.spec.unwrap_or_default(), faults);
            }
        }
        policies.refuse_unknown_names(faults);
        policies
    }

    /// Targets that are not there may be misspelt, or another app's.
    pub(crate) fn warn_of_targets_beside(&self, is_known: impl Fn(&str) -> bool) {
        for (component, Target { place, .. }) in self.components.iter().filter(|(component, _)| !is_known(component)) {
            tracing::warn!(%place, component, "policies for a component that this app has not");
        }
    }

    /// For the calls to the state store of this name.
    pub(crate) fn of_state_store(&self, component: &str) -> Policy {
        let (timeout, retry, breaker) = match self.components.get(component) {
            Some(Target { outbound: PolicyNames { timeout, retry, circuit_breaker }, .. }) => (
                self.timeouts.get(timeout.expose()),
                self.retries.get(retry.expose()),
                self.circuit_breakers.get(circuit_breaker.expose()),
            ),
            None => (
                default_of(&self.timeouts, "TimeoutPolicy"),
                default_of(&self.retries, "RetryPolicy"),
                default_of(&self.circuit_breakers, "CircuitBreakerPolicy"),
            ),
        };
        Policy::new(component, timeout.copied().flatten(), retry.cloned(), breaker.cloned())
    }

    /// What is malformed is there all the same, as its default: its name is not unknown.
    fn add(&mut self, place: &Place, spec: document::Spec, faults: &mut Faults) {
        let document::Policies { timeouts, retries, circuit_breakers } = spec.policies.unwrap_or_default();
        let mut report = |kind: &str, name: &str, source| {
            let policy = format!("spec.policies.{kind}.{name}");
            faults.push(place.clone(), Problem::Policy { policy, source });
        };
        for (name, text) in timeouts.unwrap_or_default() {
            let timeout = parse_duration(&text);
            if timeout.is_none() {
                report("timeouts", &name, InvalidPolicy::Timeout);
            }
            self.timeouts.insert(name, timeout.and_then(GoDuration::positive));
        }
        for (name, written) in retries.unwrap_or_default() {
            let retry = Retry::new(&written).map_err(|error| report("retries", &name, error));
            self.retries.insert(name, retry.unwrap_or_default());
        }
        for (name, written) in circuit_breakers.unwrap_or_default() {
            let settings = Settings::new(&written).map_err(|error| report("circuitBreakers", &name, error));
            self.circuit_breakers.insert(name, Arc::new(settings.unwrap_or_default()));
        }
        let document::Targets { components, apps, actors } = spec.targets.unwrap_or_default();
        for (name, target) in [("apps", apps), ("actors", actors)] {
            if target.is_some() {
                tracing::warn!(%place, "`spec.targets.{name}` has no effect: only calls to components have policies");
            }
        }
        for (name, target) in components.unwrap_or_default() {
            let (outbound, inbound) = (target.outbound.unwrap_or_default(), target.inbound.unwrap_or_default());
            self.components.insert(name, Target { place: place.clone(), outbound, inbound });
        }
    }

    fn refuse_unknown_names(&self, faults: &mut Faults) {
        for (component, Target { place, outbound, inbound }) in &self.components {
            for (direction, names) in [("outbound", outbound), ("inbound", inbound)] {
                let mut check = |field: &str, name: &Scalar, known: Vec<&str>| {
                    let name = name.expose();
                    if !name.is_empty() && !known.contains(&name) {
                        let target = format!("spec.targets.components.{component}.{direction}.{field}");
                        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                        faults.push(place.clone(), Problem::UnknownPolicy { target, policy: name.to_owned(), known });
                    }
                };
                check("timeout", &names.timeout, names_of(&self.timeouts));
                check("retry", &names.retry, names_of(&self.retries));
                check("circuitBreaker", &names.circuit_breaker, names_of(&self.circuit_breakers));
            }
        }
    }
}

fn names_of<T>(policies: &BTreeMap<String, T>) -> Vec<&str> {
    policies.keys().map(String::as_str).collect()
}

fn default_of<'a, T>(policies: &'a BTreeMap<String, T>, kind: &str) -> Option<&'a T> {
    STATE_STORE_DEFAULTS.iter().find_map(|target| policies.get(&format!("Default{target}{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppId;

    /// Of the documents in this order, for the app `shop`.
    fn policies(documents: &[&str]) -> Policies {
        let place = Place { file: "r.yaml".into(), document: Some(1), line: Some(1) };
        let documents = documents.iter().map(|yaml| (place.clone(), serde_yaml::from_str(yaml).unwrap()));
        let app = App { id: AppId::new("shop").ok(), ..App::default() };
        let mut faults = Faults::default();
        let policies = Policies::new(documents.collect(), &app, &mut faults);
        assert!(faults.is_empty(), "{faults}");
        policies
    }

    fn timeout(policies: &Policies, component: &str) -> Option<u64> {
        policies.of_state_store(component).timeout.map(|timeout| timeout.as_secs())
    }

    const TARGET: &str = "targets: {components: {store: {outbound: {timeout: own}}}}";

    #[test]
    fn without_a_document_there_is_no_policy() {
        assert!(policies(&[]).of_state_store("store").is_none());
        assert!(policies(&["spec: {policies: {timeouts: , retries: }, targets: }"]).of_state_store("store").is_none());
    }

    #[test]
    fn a_target_has_the_policies_that_it_names() {
        let policies = policies(&[
            "spec: {policies: {timeouts: {own: 7s}, retries: {own: {}}, circuitBreakers: {own: {}}}, targets: {components:
                {all: {outbound: {timeout: own, retry: own, circuitBreaker: own}}, one: {outbound: {retry: own}}}}}",
        ]);
        let Policy { timeout, retry, breaker } = policies.of_state_store("all");
        assert_eq!((timeout, retry), (Some(Duration::from_secs(7)), Some(Retry::default())));
        assert!(breaker.is_some());
        let Policy { timeout, retry, breaker } = policies.of_state_store("one");
        assert_eq!((timeout, retry, breaker.is_some()), (None, Some(Retry::default()), false));
    }

    #[test]
    fn the_most_special_default_counts_for_what_is_no_target() {
        let names = ["StatestoreComponentOutbound", "ComponentOutbound", "Component", ""];
        for (first, _) in names.iter().enumerate() {
            let timeouts = names[first..].iter().enumerate();
            let timeouts = timeouts.map(|(index, name)| format!("Default{name}TimeoutPolicy: {}s", first + index + 1));
            let timeouts: Vec<String> = timeouts.collect();
            let spec = format!("spec: {{policies: {{timeouts: {{own: 9s, {}}}}}, {TARGET}}}", timeouts.join(", "));
            let policies = policies(&[&spec]);
            assert_eq!(timeout(&policies, "other"), Some(first as u64 + 1));
            assert_eq!(timeout(&policies, "store"), Some(9));
        }
    }

    #[test]
    fn a_target_has_no_defaults_even_where_it_names_nothing() {
        let spec = "spec: {policies: {timeouts: {DefaultTimeoutPolicy: 9s}}, targets: {components: {store: {}}}}";
        assert_eq!(timeout(&policies(&[spec]), "store"), None);
    }

    #[test]
    fn documents_are_put_together_and_the_later_of_one_name_counts() {
        let (target, policy) = (format!("spec: {{{TARGET}}}"), "spec: {policies: {timeouts: {own: 1s}}}");
        assert_eq!(timeout(&policies(&[&target, policy]), "store"), Some(1));
        assert_eq!(timeout(&policies(&[policy, &target, &policy.replace('1', "2")]), "store"), Some(2));
        let other = "spec: {targets: {components: {store: {inbound: {timeout: own}}}}}";
        assert_eq!(timeout(&policies(&[policy, &target, other]), "store"), None);
    }

    #[test]
    fn a_document_is_for_the_apps_of_its_scopes() {
        let scoped =
            |scopes| format!("spec: {{policies: {{timeouts: {{DefaultTimeoutPolicy: 3s}}}}}}\nscopes: {scopes}");
        assert_eq!(timeout(&policies(&[&scoped("[desk, shop]")]), "store"), Some(3));
        assert_eq!(timeout(&policies(&[&scoped("[]")]), "store"), Some(3));
        assert_eq!(timeout(&policies(&[&scoped("[desk]")]), "store"), None);
    }

    #[test]
    fn a_timeout_of_zero_or_less_is_none_and_a_bare_integer_is_milliseconds() {
        let of = |text| policies(&[&format!("spec: {{policies: {{timeouts: {{DefaultTimeoutPolicy: {text}}}}}}}")]);
        for text in ["0", "0s", "-5s"] {
            assert_eq!(timeout(&of(text), "store"), None, "{text}");
        }
        assert_eq!(timeout(&of("2000"), "store"), Some(2));
    }
}
