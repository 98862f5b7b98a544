//! Dapr's Configuration, as far as it is about components: which secrets guests may have (`spec.secrets.scopes`), which
//! types of components are not loaded (`spec.components.deny`), and which building blocks guests may call (`spec.api`).
//!
//! Dapr takes the one Configuration that an app names (`dapr.io/config`). Here every one that lies among the components
//! counts, unless the app names one: then it alone counts of the container's own, beside all of the node's operator. What
//! else of a Configuration guards something, and has no effect here, is a warning.
//!
//! Source: dapr/dapr `pkg/config/configuration.go`, `pkg/runtime/authorizer/component_denylist.go`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::app::App;
use crate::manifest::{Faults, Manifest, Place};
use crate::registry::TypeVersion;
use crate::secrets::{SecretScope, SecretScopes};

/// One document.
#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
pub(crate) struct Configuration {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
struct Metadata {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
struct Spec {
    secrets: Option<Secrets>,
    components: Option<ComponentRules>,
    api: Option<Api>,
    access_control: Option<IgnoredAny>,
    app_http_pipeline: Option<IgnoredAny>,
    http_pipeline: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
struct Secrets {
    scopes: Option<Vec<SecretScope>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
struct ComponentRules {
    /// Types, such as `state.redis`, each perhaps with a slash and a version.
    deny: Option<Vec<String>>,
}

/// Their versions and protocols are of no account: a guest's calls have neither.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "a mapping")]
struct Api {
    allowed: Option<Vec<ApiRule>>,
    denied: Option<Vec<ApiRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
struct ApiRule {
    /// Such as `state`.
    name: String,
}

impl Configuration {
    fn is_named(&self, name: &str) -> bool {
        self.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()) == Some(name)
    }
}

impl Spec {
    fn warn_of_what_has_no_effect(&self, place: &Place) {
        let guards = [
            ("accessControl", &self.access_control),
            ("appHttpPipeline", &self.app_http_pipeline),
            ("httpPipeline", &self.http_pipeline),
        ];
        for (name, _) in guards.into_iter().filter(|(_, written)| written.is_some()) {
            tracing::warn!(%place, "`spec.{name}` has no effect: requests reach the guest, and its calls their component, without it");
        }
    }
}

impl Api {
    /// A list of what is allowed has all that is.
    fn allows(&self, name: &str) -> bool {
        let names = |rules: &Vec<ApiRule>| rules.iter().any(|rule| rule.name.eq_ignore_ascii_case(name));
        let allowed = self.allowed.as_ref().is_none_or(|rules| rules.is_empty() || names(rules));
        allowed && !self.denied.as_ref().is_some_and(names)
    }
}

/// What the Configurations of one app say, together: what one of them forbids is forbidden.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) secret_scopes: SecretScopes,
    denied_types: Vec<String>,
    apis: Vec<Api>,
}

impl Rules {
    /// Of the operator's documents, and the container's own.
    pub(crate) fn new(
        of_node: Vec<(Place, Configuration)>,
        mut own: Vec<(Place, Configuration)>,
        app: &App,
        faults: &mut Faults,
    ) -> Self {
        if let Some(name) = &app.configuration {
            let is_named = |(_, document): &(Place, Configuration)| document.is_named(name);
            if own.iter().any(is_named) {
                own.retain(is_named);
            } else if !of_node.iter().any(is_named) {
                tracing::warn!(name, "the app's Configuration is not among the components: all that are there count");
            }
        }
        let mut rules = Self::default();
        for (place, document) in of_node.into_iter().chain(own) {
            let spec = document.spec.unwrap_or_default();
            spec.warn_of_what_has_no_effect(&place);
            for scope in spec.secrets.and_then(|secrets| secrets.scopes).unwrap_or_default() {
                let added = rules.secret_scopes.add(scope, place.clone());
                added.unwrap_or_else(|problem| faults.push(place.clone(), problem));
            }
            rules.denied_types.extend(spec.components.and_then(|components| components.deny).unwrap_or_default());
            rules.apis.extend(spec.api);
        }
        rules
    }

    /// Whether a component of this type may be loaded. The log says which may not.
    pub(crate) fn admit(&self, manifest: &Manifest) -> bool {
        let Manifest { place, name, component_type, version, .. } = manifest;
        let denied = self.deny(&TypeVersion::new(component_type, version));
        if denied {
            tracing::warn!(%place, name, component_type, "left out: the Configuration denies this type");
        }
        !denied
    }

    /// Whether components of a type may not be loaded, whatever it is called in the manifest.
    pub(crate) fn deny(&self, wanted: &TypeVersion) -> bool {
        self.denied_types.iter().any(|denied| match denied.split_once('/') {
            None => TypeVersion::new(denied, "").component_type == wanted.component_type,
            Some((denied, version)) => TypeVersion::new(denied, version) == *wanted,
        })
    }

    /// Whether guests may call a building block, by its name in Dapr's API. The log says which they may not.
    pub(crate) fn allow(&self, building_block: &str) -> bool {
        let allowed = self.apis.iter().all(|api| api.allows(building_block));
        if !allowed {
            tracing::warn!("guests have no {building_block}: `spec.api` of the Configuration closes it");
        }
        allowed
    }
}
