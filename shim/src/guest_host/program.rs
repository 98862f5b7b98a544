//! What a container's process is to run, prepared as far as it can be from outside.

use std::fs::File;
use std::io;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use components::Registry;
use components::manifest::{Source, sources};
use engines::artifact_cache::{Artifact, Entry};
use engines::engine::Engine;
use engines::module_info::ModuleInfo;

use super::GuestHost;
use super::compiled::FoundModule;
use super::container_config::{Trigger, WasmConfig, Workload};
use super::descriptors::OpenFiles;
use super::rootfs::Rootfs;
use super::trigger::initializer;
use crate::operator_config::OperatorConfig;
use crate::printable::printable;
use crate::read_only;

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
    /// What engine and registry opened when they were made.
    pub(super) opened: OpenFiles,
    /// The components of the node's operator, whose files the container does not see.
    pub(super) node_components: Vec<Source>,
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
    let engine = match (&config.engine, &operator.default_engine) {
        (Some(name), _) => guest_host.find_engine(name).context("annotation dapr.wasm/engine")?,
        (None, Some(name)) => guest_host.find_engine(name).context("defaultEngine in the node's configuration")?,
        (None, None) => guest_host.find_engine(guest_host.default_engine()?)?,
    };
    let check = |info: &ModuleInfo| check_exports(info, &config.trigger);
    let module = FoundModule { rootfs, path: &config.module, image: config.image.as_deref() };
    let Entry { artifact, description } = module.compiled(&*engine, operator, check)?;
    Ok(WasmProgram {
        engine,
        artifact: protected(artifact).context("cannot keep the artifact from being written to")?,
        initializer: initializer(&description.info),
        config,
        registry: guest_host.components,
        opened: guest_host.opened,
        node_components: sources(operator.components.as_slice()),
    })
}

/// The artifact, by a descriptor that cannot be opened again for writing.
fn protected(artifact: Artifact) -> io::Result<Artifact> {
    if artifact.is_sealed() {
        return Ok(artifact);
    }
    let mount = read_only::mount(&read_only::path_of(artifact.file()))?;
    let file = File::open(read_only::path_of(&mount))?;
    artifact.with_file(file)
}

/// A missing export is known before the start.
fn check_exports(info: &ModuleInfo, trigger: &Trigger) -> anyhow::Result<()> {
    let wanted = match trigger {
        Trigger::Command { function } => function,
        Trigger::Http { .. } => host_abi::http::HANDLE_HTTP_REQUEST,
    };
    let exported = info.exported_functions();
    let name = printable(wanted);
    ensure!(info.exports_function(wanted), "it exports no function {name}; its functions are: {exported}");
    Ok(())
}
