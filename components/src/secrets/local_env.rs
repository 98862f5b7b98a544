//! `secretstores.local.env`: each variable of the container's environment is a secret with one value, under its name.
//!
//! As in Dapr, `APP_API_TOKEN` and variables that begin with `DAPR_` are no secrets to ask for. Dapr answers with an
//! empty value for those and for what is not set; here that is an error.
//!
//! Source: dapr/components-contrib `secretstores/local/env/envstore.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use host_abi::error::{Error, ErrorClass};
use host_abi::secrets::{Redacted, Secret};

use super::SecretSource;
use crate::app::{App, is_reserved};
use crate::field::{Description, Field, fields};
use crate::properties::{InvalidProperty, Properties};

fields! {
    FIELDS {
        PREFIX = Field::text("prefix", "only variables that begin so are secrets, and their names leave it out");
    }
}

pub const DESCRIPTION: Description = Description {
    about: "The variables of the container's environment, each a secret with one value; but for `APP_API_TOKEN` and \
            those that begin with `DAPR_`.",
    fields: FIELDS,
    without_effect: &[],
};

struct LocalEnv {
    prefix: String,
    /// By their names without the prefix.
    variables: BTreeMap<String, Redacted>,
}

/// # Errors
/// None.
pub fn construct(properties: &Properties, app: &App) -> Result<Arc<dyn SecretSource>, InvalidProperty> {
    let prefix = properties.text(&PREFIX).unwrap_or_default();
    let readable = app.environment.iter().filter(|(name, _)| !is_reserved(name));
    let stripped = readable.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value)));
    let named = stripped.filter(|(name, _)| !name.is_empty());
    let variables = named.map(|(name, value)| (name.to_owned(), value.clone())).collect();
    Ok(Arc::new(LocalEnv { prefix: prefix.to_owned(), variables }))
}

impl SecretSource for LocalEnv {
    fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        if is_reserved(&format!("{}{name}", self.prefix)) {
            let message = "APP_API_TOKEN and variables that begin with DAPR_ are not for components or guests";
            return Err(Error::new(ErrorClass::PermissionDenied, message));
        }
        Ok(self.variables.get(name).map(|value| secret(name, value)))
    }

    fn all(&self) -> Result<BTreeMap<String, Secret>, Error> {
        Ok(self.variables.iter().map(|(name, value)| (name.clone(), secret(name, value))).collect())
    }
}

fn secret(name: &str, value: &Redacted) -> Secret {
    Secret::from([(name.to_owned(), value.clone())])
}
