//! For whom components are loaded.

use std::collections::BTreeMap;
use std::fmt;

use crate::properties::Redacted;
use crate::state::key_prefix::SEPARATOR;

/// A Dapr app id: not empty, and without `||`, which separates it from the keys in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppId(String);

impl AppId {
    /// # Errors
    /// The id is empty or holds `||`.
    pub fn new(id: impl Into<String>) -> Result<Self, InvalidAppId> {
        let id = id.into();
        if id.is_empty() {
            Err(InvalidAppId::Empty)
        } else if id.contains(SEPARATOR) {
            Err(InvalidAppId::Separator(id))
        } else {
            Ok(Self(id))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAppId {
    #[error("the app id is empty")]
    Empty,
    #[error("the app id {0:?} must not contain {SEPARATOR:?}")]
    Separator(String),
}

/// What scopes, key prefixes and the templates in component values are resolved with.
#[derive(Clone, Debug, Default)]
pub struct App {
    pub id: Option<AppId>,
    /// Of the pod. Elsewhere the variable `NAMESPACE` is the namespace, as with Dapr: see [`namespace`](Self::namespace).
    pub namespace: Option<String>,
    /// The name of Dapr's Configuration that alone counts, if it is there.
    pub configuration: Option<String>,
    /// Known in Kubernetes, and nowhere else.
    pub pod_name: Option<String>,
    /// What `envRef` and `secretstores.local.env` read: the container's, not that of this process.
    pub environment: BTreeMap<String, Redacted>,
}

impl App {
    /// Empty where there is none.
    pub(crate) fn namespace(&self) -> &str {
        let variable = || self.environment.get("NAMESPACE").map(Redacted::expose);
        self.namespace.as_deref().or_else(variable).unwrap_or_default()
    }

    /// Whether `scopes`, a list of app ids, admit this app: an empty list admits every app, and an app without an id
    /// is in no other.
    pub(crate) fn is_in_scope(&self, scopes: &[String]) -> bool {
        scopes.is_empty() || self.id.as_ref().is_some_and(|id| scopes.iter().any(|scope| scope == id.as_str()))
    }

    /// Empty for an app without an id.
    pub(crate) fn id_or_empty(&self) -> &str {
        self.id.as_ref().map_or("", AppId::as_str)
    }

    pub(crate) fn is_in_kubernetes(&self) -> bool {
        self.pod_name.is_some()
    }
}

/// Dapr keeps its own variables, and the token of the app's API, from components and guests.
pub(crate) fn is_reserved(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    upper == "APP_API_TOKEN" || upper.starts_with("DAPR_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_id_is_not_empty_and_holds_no_separator() {
        assert_eq!(AppId::new(""), Err(InvalidAppId::Empty));
        assert_eq!(AppId::new("a||b"), Err(InvalidAppId::Separator("a||b".into())));
        assert_eq!(AppId::new("my-app").map(|id| id.to_string()), Ok("my-app".into()));
    }
}
