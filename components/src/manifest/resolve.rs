//! From the items of a manifest to values: references followed, templates filled in. Variables are those of
//! this process, not of the guest.
//!
//! Source: dapr/dapr `pkg/runtime/meta/meta.go` and `pkg/runtime/processor/secret/secret.go`.

use uuid::Uuid;

use super::document::Item;
use super::{Manifest, Problem};
use crate::app::App;
use crate::properties::{Properties, Redacted};

impl Manifest {
    /// The component's metadata for `app`, or everything that keeps it from being resolved.
    pub(crate) fn resolve(&self, app: &App) -> Result<Properties, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut pairs = Vec::new();
        for item in &self.items {
            match self.resolve_item(item, app) {
                Ok(value) => pairs.push((&item.name, Redacted::from(value))),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(pairs.into_iter().collect()) } else { Err(problems) }
    }

    fn resolve_item(&self, item: &Item, app: &App) -> Result<String, Problem> {
        let (component, item_name) = (|| self.name.clone(), || item.name.clone());
        if let Some(reference) = item.secret_key_ref.as_ref().filter(|reference| !reference.name.is_empty()) {
            return Err(Problem::SecretStore {
                component: component(),
                item: item_name(),
                secret: reference.name.clone(),
            });
        }
        let written = item.value.0.expose();
        let value = match item.env_ref.as_deref() {
            Some(variable) if written.is_empty() && !variable.is_empty() => {
                if !may_be_read(variable) {
                    let variable = variable.to_owned();
                    return Err(Problem::DeniedVariable { component: component(), item: item_name(), variable });
                }
                std::env::var(variable).unwrap_or_default()
            }
            _ => written.to_owned(),
        };
        fill_in(value, app).ok_or_else(|| Problem::NoPodName { component: component(), item: item_name() })
    }
}

/// Dapr keeps its own variables, and the token of the app's API, from components.
fn may_be_read(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    upper != "APP_API_TOKEN" && !upper.starts_with("DAPR_") && !variable.contains(' ')
}

/// Replaces the templates, each `{uuid}` by another one; none where `{podName}` is asked for and unknown.
fn fill_in(mut value: String, app: &App) -> Option<String> {
    while value.contains("{uuid}") {
        value = value.replacen("{uuid}", &Uuid::new_v4().to_string(), 1);
    }
    if value.contains("{podName}") {
        value = value.replace("{podName}", app.pod_name.as_deref()?);
    }
    if value.contains("{namespace}") {
        let namespace = app.namespace.as_deref().unwrap_or_default();
        value = value.replace("{namespace}", &format!("{namespace}.{}", app.id_or_empty()));
    }
    Some(value.replace("{appID}", app.id_or_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppId;

    fn app() -> App {
        App { id: AppId::new("shop").ok(), namespace: Some("prod".into()), pod_name: Some("shop-1".into()) }
    }

    fn filled_in(value: &str, app: &App) -> Option<String> {
        fill_in(value.to_owned(), app)
    }

    #[test]
    fn templates_are_filled_in() {
        assert_eq!(filled_in("{podName}/{appID}/{appID}", &app()).as_deref(), Some("shop-1/shop/shop"));
        assert_eq!(filled_in("{namespace}", &app()).as_deref(), Some("prod.shop"));
        assert_eq!(filled_in("{appID}-{other}", &App::default()).as_deref(), Some("-{other}"));
    }

    #[test]
    fn every_uuid_is_another_one() {
        let value = filled_in("{uuid} {uuid}", &app()).unwrap();
        let (first, second) = value.split_once(' ').unwrap();
        assert!(Uuid::parse_str(first).is_ok() && Uuid::parse_str(second).is_ok());
        assert_ne!(first, second);
    }

    #[test]
    fn a_pod_name_that_is_not_known_is_no_value() {
        assert_eq!(filled_in("{podName}", &App::default()), None);
    }

    #[test]
    fn variables_of_dapr_are_not_read() {
        for variable in ["APP_API_TOKEN", "DAPR_API_TOKEN", "dapr_host_ip", "PATH HOME"] {
            assert!(!may_be_read(variable), "{variable}");
        }
        assert!(may_be_read("REDIS_PASSWORD"));
    }
}
