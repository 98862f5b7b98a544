//! The shape of a Resiliency document.
//!
//! Source: dapr/dapr `pkg/apis/resiliency/v1alpha1/types.go`. Fields that are not here are tolerated.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::manifest::Scalar;

/// By name; nothing written is nothing there.
type Named<T> = Option<BTreeMap<String, T>>;

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
pub(crate) struct Document {
    pub(super) spec: Option<Spec>,
    pub(super) scopes: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a mapping")]
pub(super) struct Spec {
    pub(super) policies: Option<Policies>,
    pub(super) targets: Option<Targets>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct Policies {
    pub(super) timeouts: Named<Scalar>,
    pub(super) retries: Named<Retry>,
    pub(super) circuit_breakers: Named<CircuitBreaker>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct Retry {
    #[serde(default)]
    pub(super) policy: Scalar,
    #[serde(default)]
    pub(super) duration: Scalar,
    #[serde(default)]
    pub(super) max_interval: Scalar,
    pub(super) max_retries: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct CircuitBreaker {
    pub(super) max_requests: Option<u32>,
    #[serde(default)]
    pub(super) interval: Scalar,
    #[serde(default)]
    pub(super) timeout: Scalar,
    #[serde(default)]
    pub(super) trip: Scalar,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a mapping")]
pub(super) struct Targets {
    pub(super) components: Named<ComponentTarget>,
    pub(super) apps: Option<IgnoredAny>,
    pub(super) actors: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a mapping")]
pub(super) struct ComponentTarget {
    pub(super) outbound: Option<PolicyNames>,
    pub(super) inbound: Option<PolicyNames>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct PolicyNames {
    #[serde(default)]
    pub(super) timeout: Scalar,
    #[serde(default)]
    pub(super) retry: Scalar,
    #[serde(default)]
    pub(super) circuit_breaker: Scalar,
}
