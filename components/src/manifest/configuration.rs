//! Of Dapr's Configuration what counts here: which secrets guests may have.

use serde::Deserialize;

use crate::secrets::SecretScope;

#[derive(Deserialize)]
#[serde(expecting = "a mapping")]
pub(super) struct Configuration {
    spec: Option<ConfigurationSpec>,
}

impl Configuration {
    pub(super) fn into_secret_scopes(self) -> Vec<SecretScope> {
        let secrets = self.spec.and_then(|spec| spec.secrets);
        secrets.and_then(|secrets| secrets.scopes).unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a mapping")]
struct ConfigurationSpec {
    secrets: Option<SecretsSpec>,
}

#[derive(Deserialize)]
#[serde(expecting = "a mapping")]
struct SecretsSpec {
    scopes: Option<Vec<SecretScope>>,
}
