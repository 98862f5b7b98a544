//! What a container's process is to run, prepared as far as it can be from outside.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use components::Registry;
use engines::artifact_cache::{Artifact, ArtifactCache, ArtifactKey};
use engines::engine::Engine;
use engines::module_info::ModuleInfo;

use super::GuestHost;
use super::compile;
use super::container_config::{Trigger, WasmConfig, Workload};
use super::rootfs::Rootfs;
use super::trigger::initializer;
use crate::operator_config::{ArtifactCacheConfig, OperatorConfig};

/// A larger module is refused: it would not be a program but an attack on the node's memory.
const MAX_MODULE_BYTES: u64 = 512 << 20;

#[derive(Clone)]
pub(super) enum Program {
    Native,
    Wasm(Arc<WasmProgram>),
}

pub(super) struct WasmProgram {
    pub(super) config: WasmConfig,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) artifact: Artifact,
    /// The export to run in a new instance before its handler is called.
    pub(super) initializer: Option<&'static str>,
    pub(super) registry: Registry,
    /// Components of the node, outside the container.
    pub(super) node_components: Option<PathBuf>,
}

impl Program {
    /// Reads, checks and compiles what the workload names.
    pub(super) fn prepare(
        guest_host: GuestHost,
        operator: &OperatorConfig,
        rootfs: &Rootfs,
        workload: Workload,
    ) -> anyhow::Result<Self> {
        match workload {
            Workload::Native => Ok(Self::Native),
            Workload::Wasm(config) => {
                wasm_program(guest_host, operator, rootfs, *config).map(|program| Self::Wasm(Arc::new(program)))
            }
        }
    }
}

fn wasm_program(
    guest_host: GuestHost,
    operator: &OperatorConfig,
    rootfs: &Rootfs,
    config: WasmConfig,
) -> anyhow::Result<WasmProgram> {
    let engine = match config.engine.as_deref().or(operator.default_engine.as_deref()) {
        Some(name) => guest_host.find_engine(name)?,
        None => guest_host.find_engine(guest_host.default_engine()?)?,
    };
    let path = config.module.display().to_string();
    let module = read_module(rootfs, &config.module).with_context(|| format!("cannot read the module {path}"))?;
    let info = ModuleInfo::read(&module).with_context(|| format!("the module {path} cannot run"))?;
    check_exports(&info, &config.trigger).with_context(|| format!("the module {path} cannot run"))?;
    let artifact = artifact(&operator.artifact_cache, &*engine, &module)
        .with_context(|| format!("the module {path} cannot run"))?;
    Ok(WasmProgram {
        engine,
        artifact,
        initializer: initializer(&info),
        config,
        registry: guest_host.components,
        node_components: operator.components.clone(),
    })
}

fn read_module(rootfs: &Rootfs, path: &Path) -> io::Result<Bytes> {
    let file = rootfs.open(path)?;
    let mut module = Vec::new();
    file.take(MAX_MODULE_BYTES + 1).read_to_end(&mut module)?;
    if module.len() as u64 > MAX_MODULE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_MODULE_BYTES} bytes")));
    }
    Ok(module.into())
}

/// A missing export is known before the start.
fn check_exports(info: &ModuleInfo, trigger: &Trigger) -> anyhow::Result<()> {
    let wanted = match trigger {
        Trigger::Command { function } => function,
        Trigger::Http { .. } => host_abi::http::HANDLE_HTTP_REQUEST,
    };
    let exported = info.exported_functions().join(", ");
    ensure!(info.exports_function(wanted), "it exports no function {wanted}; its functions are: {exported}");
    Ok(())
}

/// The compiled module, from the node's cache where that can be used.
fn artifact(cache: &ArtifactCacheConfig, engine: &dyn Engine, module: &Bytes) -> anyhow::Result<Artifact> {
    let compile = || compile::in_child(engine.name(), module);
    match ArtifactCache::open(&cache.folder, cache.max_bytes) {
        Ok(cache) => cache.get_or_compile(&ArtifactKey::new(engine, module), compile),
        Err(error) => {
            tracing::warn!(%error, "no artifact cache: the module is compiled for this container alone");
            Ok(Artifact::in_memory(&compile()?.into())?)
        }
    }
}
