//! Which secrets guests may have: `spec.secrets.scopes` of Dapr's Configuration.
//!
//! ```yaml
//! apiVersion: dapr.io/v1alpha1
//! kind: Configuration
//! metadata: {name: config}
//! spec:
//!   secrets:
//!     scopes:
//!     - {storeName: vault, defaultAccess: deny, allowedSecrets: [greeting]}
//! ```
//!
//! A store without a scope gives everything. Components themselves are not bound by scopes.
//!
//! Source: dapr/dapr `pkg/config/configuration.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer};

use crate::manifest::{Place, Problem};

/// The secrets of one store that guests may have. A list of allowed ones is all there is; without one, the denied
/// ones are taken from what the default is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub struct SecretScope {
    pub store_name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub default_access: Access,
    #[serde(default, deserialize_with = "or_default")]
    pub allowed_secrets: BTreeSet<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub denied_secrets: BTreeSet<String>,
}

/// Null counts as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// In YAML `allow` or `deny`, in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Access {
    #[default]
    Allow,
    Deny,
}

impl TryFrom<String> for Access {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.to_ascii_lowercase().as_str() {
            "" | "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err("`defaultAccess` must be `allow` or `deny`"),
        }
    }
}

impl SecretScope {
    pub fn allows(&self, secret: &str) -> bool {
        if !self.allowed_secrets.is_empty() {
            return self.allowed_secrets.contains(secret);
        }
        self.default_access == Access::Allow && !self.denied_secrets.contains(secret)
    }
}

/// At most one scope for each store, with the place it stands at.
#[derive(Debug, Default)]
pub struct SecretScopes(BTreeMap<String, (SecretScope, Place)>);

impl SecretScopes {
    /// # Errors
    /// The store has a scope already.
    pub(crate) fn add(&mut self, scope: SecretScope, place: Place) -> Result<(), Problem> {
        let store = scope.store_name.clone();
        if let Some((_, first)) = self.0.get(&store) {
            return Err(Problem::RepeatedScope { store, first: first.clone() });
        }
        self.0.insert(store, (scope, place));
        Ok(())
    }

    pub(crate) fn remove(&mut self, store: &str) -> Option<SecretScope> {
        self.0.remove(store).map(|(scope, _)| scope)
    }

    /// What was not removed: the store's name, and where the scope stands.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, Place)> {
        self.0.into_iter().map(|(store, (_, place))| (store, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(default_access: Access, allowed: &[&str], denied: &[&str]) -> String {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let (allowed_secrets, denied_secrets) = (names(allowed), names(denied));
        let scope = SecretScope { store_name: "s".to_owned(), default_access, allowed_secrets, denied_secrets };
        let allowed: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| scope.allows(name)).collect();
        allowed.join("")
    }

    #[test]
    fn allowed_secrets_come_before_denied_ones_and_these_before_the_default() {
        use Access::{Allow, Deny};
        assert_eq!(allowed(Allow, &[], &[]), "abc");
        assert_eq!(allowed(Deny, &[], &[]), "");
        assert_eq!(allowed(Allow, &[], &["b"]), "ac");
        assert_eq!(allowed(Deny, &[], &["b"]), "");
        for default_access in [Allow, Deny] {
            assert_eq!(allowed(default_access, &["a", "b"], &["b"]), "ab");
        }
    }
}
