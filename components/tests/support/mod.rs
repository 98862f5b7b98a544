//! Stores made from Component YAML, as a container's are, and requests on them.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use components::{App, Registry};
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, SetRequest, StateStore};

/// The one store of a manifest with this metadata, for an app without an id. The component is a type, or a type and
/// its version (`state.postgresql v2`). Where it cannot be reached, it says so at once.
pub(crate) fn store(component: &str, metadata: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let (kind, version) = component.split_once(' ').unwrap_or((component, "v1"));
    let mut yaml = format!(
        "kind: Component\nmetadata: {{name: store}}\nspec:\n  type: {kind}\n  version: {version}\n  \
         initTimeout: 1ns\n  metadata:\n"
    );
    for (name, value) in metadata {
        writeln!(yaml, "  - {{name: {name:?}, value: {value:?}}}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.yaml"), yaml).unwrap();
    let components = Registry::builtin().load(&[folder.path()], &App::default()).unwrap();
    Arc::clone(&components.state_stores["store"])
}

pub(crate) async fn get(store: &dyn StateStore, key: &str) -> GetResponse {
    store.get(GetRequest { key: key.to_owned(), ..GetRequest::default() }).await.unwrap()
}

pub(crate) fn set_request(key: &str, value: impl AsRef<[u8]>) -> SetRequest {
    SetRequest { key: key.to_owned(), value: value.as_ref().to_vec().into(), ..SetRequest::default() }
}

pub(crate) fn delete_request(key: &str) -> DeleteRequest {
    DeleteRequest { key: key.to_owned(), ..DeleteRequest::default() }
}

/// Request metadata that asks for a time to live.
pub(crate) fn ttl(seconds: &str) -> Option<Vec<(String, String)>> {
    Some(vec![("ttlInSeconds".to_owned(), seconds.to_owned())])
}
