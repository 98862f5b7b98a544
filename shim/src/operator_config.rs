//! What the node's operator decides: a YAML file, named by `ConfigPath` of the runtime's options in containerd's
//! configuration, or else the usual one.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::quantity;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct OperatorConfig {
    /// The engine of a container whose annotations name none; without it, the first that is built in.
    pub(crate) default_engine: Option<String>,
    pub(crate) artifact_cache: ArtifactCacheConfig,
    pub(crate) compiler: CompilerConfig,
    /// A file or folder of Dapr components on the node, for every container, beside its own.
    pub(crate) components: Option<PathBuf>,
    /// The program that hosts a guest; without it, `dapr-guest-host` beside the shim.
    pub(crate) guest_host: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ArtifactCacheConfig {
    pub(crate) folder: PathBuf,
    /// Bytes on disk; what was used longest ago goes first.
    #[serde(deserialize_with = "quantity::deserialize")]
    pub(crate) max_bytes: u64,
}

impl Default for ArtifactCacheConfig {
    fn default() -> Self {
        Self { folder: "/var/cache/dapr-wasm/artifacts".into(), max_bytes: 4 << 30 }
    }
}

/// What one compilation may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CompilerConfig {
    #[serde(deserialize_with = "quantity::deserialize")]
    pub(crate) max_memory_bytes: u64,
    pub(crate) max_seconds: u64,
}

impl Default for CompilerConfig {
    fn default() -> Self {
        Self { max_memory_bytes: 4 << 30, max_seconds: 600 }
    }
}

/// With less a compiler may fail before it can say so.
const MIN_COMPILER_MEMORY: u64 = 64 << 20;

/// Where the installer writes the configuration.
const USUAL_PATH: &str = "/etc/dapr-wasm/config.yaml";

impl OperatorConfig {
    /// The program that hosts a guest.
    pub(crate) fn guest_host_program(&self) -> io::Result<PathBuf> {
        match &self.guest_host {
            Some(program) => Ok(program.clone()),
            None => Ok(env::current_exe()?.with_file_name("dapr-guest-host")),
        }
    }

    /// The one that everybody has who names no other, if there is one.
    pub(crate) fn read_usual() -> anyhow::Result<Self> {
        let path = Path::new(USUAL_PATH);
        if path.exists() { Self::read(path) } else { Ok(Self::default()) }
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let read = serde_yaml::from_str(&text).map_err(Into::into).and_then(Self::checked);
        read.with_context(|| format!("{} is not a configuration of this runtime", path.display()))
    }

    /// Itself, where no value of it would keep every container from being created.
    fn checked(self) -> anyhow::Result<Self> {
        let paths = [
            ("artifactCache.folder", Some(&self.artifact_cache.folder)),
            ("components", self.components.as_ref()),
            ("guestHost", self.guest_host.as_ref()),
        ];
        for (name, path) in paths {
            ensure!(path.is_none_or(|path| path.is_absolute()), "{name}: not an absolute path");
        }
        ensure!(self.compiler.max_memory_bytes >= MIN_COMPILER_MEMORY, "compiler.maxMemoryBytes: less than 64Mi");
        Ok(self)
    }
}
