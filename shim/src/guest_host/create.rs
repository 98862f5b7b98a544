//! Everything that is done before a container's process exists.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use engines::artifact_cache::{Artifact, ArtifactCache, ArtifactKey};
use engines::engine::Engine;
use engines::module_info::ModuleInfo;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::Spec;

use super::GuestHost;
use super::compile;
use super::container_config::{Trigger, WasmConfig, Workload, workload};
use super::executor::{ContainerExecutor, Program, WasmProgram};
use super::rootfs::Rootfs;
use super::trigger::initializer;
use crate::cgroup_path::CgroupPath;
use crate::operator_config::{ArtifactCacheConfig, OperatorConfig};
use crate::protocol::CreateContainer;

/// A larger module is refused: it would not be a program but an attack on the node's memory.
const MAX_MODULE_BYTES: u64 = 512 << 20;

/// Creates the container and answers the pid of its process, which waits for the start.
pub(super) fn create(
    guest_host: GuestHost,
    request: &CreateContainer,
    control: &Arc<OwnedFd>,
    [stdin, stdout, stderr]: [File; 3],
) -> anyhow::Result<i32> {
    let rootfs_path = request.bundle.join("rootfs");
    fs::create_dir_all(&rootfs_path)?;
    Rootfs::mount(&request.rootfs, &rootfs_path)?;
    let spec = Spec::load(request.bundle.join("config.json")).context("cannot read the container's config.json")?;
    let cgroup = CgroupPath::of(&spec, &request.id);
    cgroup.ensure_manageable()?;
    let rootfs = Rootfs::open_root(&root_of(&spec, &request.bundle)?)?;
    let program = match workload(&spec, &rootfs)? {
        Workload::Native => Program::Native,
        Workload::Wasm(config) => {
            Program::Wasm(wasm_program(guest_host, &request.operator, &rootfs, config).map(Arc::new)?)
        }
    };
    drop(rootfs);
    let executor = ContainerExecutor::new(program, Arc::clone(control));
    let mut container = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_executor(executor)
        .with_root_path(request.bundle.join("libcontainer"))?
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .validate_id()?
        .as_init(&request.bundle)
        .as_sibling(true)
        .with_systemd(cgroup.is_unit)
        .with_detach(true)
        .build()?;
    // From libcontainer's view the container runs; its process waits for the shim's own word.
    container.start()?;
    let pid = container.pid().context("libcontainer created a container without a process")?;
    Ok(pid.as_raw())
}

fn root_of(spec: &Spec, bundle: &Path) -> anyhow::Result<std::path::PathBuf> {
    let root = spec.root().as_ref().context("the container's config.json has no root")?;
    Ok(bundle.join(root.path()))
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
