//! What the shim has to know of a container's `config.json`. All of it is its guest host's, and so is the code to read
//! it: what is linked to the shim costs time at each of its executions.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, LinuxResources};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::poststop::Hook;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) oci_version: String,
    #[serde(default)]
    pub(super) annotations: HashMap<String, String>,
    hooks: Option<Hooks>,
    linux: Option<Linux>,
}

/// The others are libcontainer's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooks {
    poststop: Option<Vec<Hook>>,
    prestart: Option<Vec<IgnoredAny>>,
    create_runtime: Option<Vec<IgnoredAny>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Linux {
    cgroups_path: Option<PathBuf>,
    namespaces: Option<Vec<LinuxNamespace>>,
}

impl Spec {
    pub(super) fn of(bundle: &Path) -> anyhow::Result<Self> {
        read(bundle)
    }

    pub(super) fn poststop(&self) -> &[Hook] {
        self.hooks.as_ref().and_then(|hooks| hooks.poststop.as_deref()).unwrap_or_default()
    }

    /// Whether the guest host executes something on the node while it makes the container.
    pub(super) fn has_hooks_of_the_guest_host(&self) -> bool {
        let hooks = self.hooks.iter().flat_map(|hooks| [&hooks.prestart, &hooks.create_runtime]);
        hooks.flatten().any(|hooks| !hooks.is_empty())
    }

    pub(super) fn cgroups_path(&self) -> Option<&Path> {
        self.linux.as_ref()?.cgroups_path.as_deref()
    }

    /// Whether the container has a namespace that no other container is in: when the first process of that one ends, the
    /// kernel ends the others.
    pub(super) fn has_own_pid_namespace(&self) -> bool {
        let namespaces = self.linux.as_ref().and_then(|linux| linux.namespaces.as_deref()).unwrap_or_default();
        namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
    }
}

/// What the container of a bundle was to have when it was made.
pub(super) fn resources_of(bundle: &Path) -> anyhow::Result<LinuxResources> {
    #[derive(Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(Deserialize)]
    struct Linux {
        resources: Option<LinuxResources>,
    }
    let spec: Spec = read(bundle)?;
    Ok(spec.linux.and_then(|linux| linux.resources).unwrap_or_default())
}

fn read<T: DeserializeOwned>(bundle: &Path) -> anyhow::Result<T> {
    let spec = fs::read(bundle.join("config.json")).context("cannot read config.json")?;
    serde_json::from_slice(&spec).context("cannot read config.json")
}
