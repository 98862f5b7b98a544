//! From the items of a manifest to values: references followed, templates filled in.
//!
//! Where Dapr starts a component without a secret that it cannot get, this reports a problem.
//!
//! Source: dapr/dapr `pkg/runtime/meta/meta.go` and `pkg/runtime/processor/secret/secret.go`.

use uuid::Uuid;

use super::document::{Item, SecretKeyRef, ValueSource};
use super::{Manifest, Problem};
use crate::app::{App, is_reserved};
use crate::field::Description;
use crate::properties::{Properties, Redacted};
use crate::secrets::{KUBERNETES_STORE, SecretSources, listed};

impl Manifest {
    /// The component's metadata for `app`, or everything that keeps it from being resolved. `known` is what there may be
    /// in it.
    pub(crate) fn resolve(
        &self,
        known: &[Description],
        app: &App,
        secrets: &SecretSources,
    ) -> Result<Properties, Vec<Problem>> {
        self.warn_of_unknown_names(known);
        let mut problems = Vec::new();
        let (mut pairs, mut referred) = (Vec::new(), Vec::new());
        for item in &self.items {
            match self.resolve_item(item, app, secrets).map(Redacted::from) {
                Ok(value) => {
                    referred.extend(item.is_reference().then(|| value.clone()));
                    pairs.push((&item.name, value));
                }
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let properties = pairs.into_iter().collect::<Properties>().with_secrets(referred);
        properties
            .described_by(known)
            .map_err(|source| vec![Problem::Property { component: self.name.clone(), source }])
    }

    /// They count for nothing, as with Dapr, and are most often a mistake.
    fn warn_of_unknown_names(&self, known: &[Description]) {
        let known: Vec<&str> = known.iter().flat_map(Description::names).collect();
        let is_known = |name: &&String| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        let unknown: Vec<&String> = self.items.iter().map(|item| &item.name).filter(|name| !is_known(name)).collect();
        if !unknown.is_empty() {
            let (component, component_type) = (&self.name, &self.component_type);
            let (unknown, known) = (listed(unknown.into_iter()), known.join(", "));
            tracing::warn!(place = %self.place, "component {component}: {component_type} knows no {unknown}; known: {known}");
        }
    }

    /// The secret store that has to be there before the component can be made.
    pub(crate) fn needs_secret_store(&self, app: &App) -> Option<&str> {
        let refers = |item: &Item| matches!(item.source(), ValueSource::Secret(_));
        self.secret_store(app).filter(|_| self.items.iter().any(refers))
    }

    /// In Kubernetes a component that names none means its Secrets.
    fn secret_store(&self, app: &App) -> Option<&str> {
        self.secret_store.as_deref().or_else(|| app.is_in_kubernetes().then_some(KUBERNETES_STORE))
    }

    fn resolve_item(&self, item: &Item, app: &App, secrets: &SecretSources) -> Result<String, Problem> {
        let value = match item.source() {
            ValueSource::Written => item.value.0.expose().to_owned(),
            ValueSource::Variable(variable) => self.variable(item, variable, app)?,
            ValueSource::Secret(reference) => self.secret(item, reference, app, secrets)?,
        };
        let no_pod_name = || Problem::NoPodName { component: self.name.clone(), item: item.name.clone() };
        fill_in(value, app).ok_or_else(no_pod_name)
    }

    fn variable(&self, item: &Item, variable: &str, app: &App) -> Result<String, Problem> {
        if !may_be_read(variable) {
            let (component, item, variable) = (self.name.clone(), item.name.clone(), variable.to_owned());
            return Err(Problem::DeniedVariable { component, item, variable });
        }
        let value = app.environment.get(variable);
        if value.is_none() {
            tracing::warn!(
                component = self.name,
                item = item.name,
                variable,
                "no such variable: the item has no value"
            );
        }
        Ok(value.map_or_else(String::new, |value| value.expose().to_owned()))
    }

    fn secret(
        &self,
        item: &Item,
        reference: &SecretKeyRef,
        app: &App,
        secrets: &SecretSources,
    ) -> Result<String, Problem> {
        let value = secrets.value(self.secret_store(app), &reference.name, reference.key());
        value.map_err(|source| Problem::Secret {
            component: self.name.clone(),
            item: item.name.clone(),
            secret: reference.name.clone(),
            source: Box::new(source),
        })
    }
}

fn may_be_read(variable: &str) -> bool {
    !is_reserved(variable) && !variable.contains(' ')
}

/// Replaces the templates, each `{uuid}` by another one; none where `{podName}` is asked for and unknown.
fn fill_in(value: String, app: &App) -> Option<String> {
    let mut parts = value.split("{uuid}");
    let mut value = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        value += &Uuid::new_v4().to_string();
        value += part;
    }
    if value.contains("{podName}") {
        value = value.replace("{podName}", app.pod_name.as_deref()?);
    }
    if value.contains("{namespace}") {
        value = value.replace("{namespace}", &format!("{}.{}", app.namespace(), app.id_or_empty()));
    }
    Some(value.replace("{appID}", app.id_or_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AppId;

    fn app() -> App {
        App {
            id: AppId::new("shop").ok(),
            namespace: Some("prod".into()),
            pod_name: Some("shop-1".into()),
            ..App::default()
        }
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
