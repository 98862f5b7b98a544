//! Whose keys are whose in a store that several apps share.
//!
//! Source: dapr/dapr `pkg/components/state/state_config.go`.

use host_abi::error::{Error, ErrorClass};

use crate::app::App;
use crate::properties::InvalidProperty;

/// Between a prefix and a key.
pub(crate) const SEPARATOR: &str = "||";

/// What goes before the keys of one app in one component; empty, or ending in the separator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyPrefix(String);

impl KeyPrefix {
    /// Reads Dapr's `keyPrefix`, in any case: `appid` (the default), `name`, `namespace`, `none`, or a literal.
    /// An app without an id has no prefix of its own; one without a namespace is told apart by its id.
    pub(crate) fn new(strategy: Option<&str>, component: &str, app: &App) -> Result<Self, InvalidProperty> {
        let strategy = strategy.unwrap_or("appid").to_lowercase();
        if strategy.contains(SEPARATOR) {
            return Err(InvalidProperty::Malformed { name: "keyPrefix", expected: "free of `||`" });
        }
        let prefix = match (strategy.as_str(), &app.id, app.namespace()) {
            ("none", _, _) | ("appid" | "namespace", None, _) => return Ok(Self(String::new())),
            ("name", _, _) => component.to_owned(),
            ("appid", Some(id), _) | ("namespace", Some(id), "") => id.to_string(),
            ("namespace", Some(id), namespace) => format!("{namespace}.{id}"),
            (literal, _, _) => literal.to_owned(),
        };
        Ok(Self(prefix + SEPARATOR))
    }

    /// The key in the store.
    ///
    /// # Errors
    /// The guest's key is empty or holds the separator: [`ErrorClass::InvalidArgument`].
    pub(crate) fn apply(&self, key: &str) -> Result<String, Error> {
        let invalid = |message: String| Err(Error::new(ErrorClass::InvalidArgument, message));
        if key.is_empty() {
            invalid("the key is empty".to_owned())
        } else if key.contains(SEPARATOR) {
            invalid(format!("key {key:?} must not contain {SEPARATOR:?}"))
        } else {
            Ok(format!("{}{key}", self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppId;

    fn app() -> App {
        App { id: AppId::new("shop").ok(), namespace: Some("prod".into()), ..App::default() }
    }

    fn key(strategy: Option<&str>, app: &App) -> String {
        KeyPrefix::new(strategy, "Store", app).unwrap().apply("k").unwrap()
    }

    #[test]
    fn the_five_strategies_are_daprs() {
        assert_eq!(key(None, &app()), "shop||k");
        assert_eq!(key(Some("appid"), &app()), "shop||k");
        assert_eq!(key(Some("name"), &app()), "Store||k");
        assert_eq!(key(Some("namespace"), &app()), "prod.shop||k");
        assert_eq!(key(Some("none"), &app()), "k");
        assert_eq!(key(Some("Shared"), &app()), "shared||k");
    }

    #[test]
    fn a_strategy_is_known_in_any_case() {
        assert_eq!(key(Some("NONE"), &app()), "k");
        assert_eq!(key(Some("AppId"), &app()), "shop||k");
    }

    #[test]
    fn an_app_without_an_id_has_no_prefix() {
        let nobody = App::default();
        assert_eq!(key(None, &nobody), "k");
        assert_eq!(key(Some("namespace"), &nobody), "k");
        assert_eq!(key(Some("name"), &nobody), "Store||k");
    }

    #[test]
    fn an_app_without_a_namespace_is_told_apart_by_its_id() {
        assert_eq!(key(Some("namespace"), &App { namespace: None, ..app() }), "shop||k");
    }

    #[test]
    fn neither_prefix_nor_key_may_hold_the_separator() {
        assert!(KeyPrefix::new(Some("a||b"), "Store", &app()).is_err());
        let error = KeyPrefix::new(None, "Store", &app()).unwrap().apply("other||k").unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidArgument);
    }

    #[test]
    fn an_empty_key_is_refused() {
        let error = KeyPrefix::new(None, "Store", &app()).unwrap().apply("").unwrap_err();
        assert_eq!(error.class, ErrorClass::InvalidArgument);
    }
}
