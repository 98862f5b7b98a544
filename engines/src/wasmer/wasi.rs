//! WASI preview 1 through wasmer-wasix.

mod files;
mod mended;
mod refusals;
mod tasks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use wasmer::{AsStoreMut, Engine, Imports, Instance, Memory, MemoryType};
use wasmer_wasix::virtual_fs::MountFileSystem;
use wasmer_wasix::{
    PluggableRuntime, Runtime, WasiEnvBuilder, WasiFunctionEnv, WasiModuleInstanceHandles, WasiModuleTreeHandles,
    WasiVersion, generate_import_object_from_env,
};

use crate::engine::{Preopen, WasiConfig};
use files::{HostDirectory, HostFile};
use tasks::NoTasks;

/// What the guests of a module share.
pub(super) type SharedRuntime = Arc<dyn Runtime + Send + Sync>;

/// No network, no packages, no processes and no threads.
pub(super) fn shared_runtime(engine: &Engine) -> SharedRuntime {
    let mut runtime = PluggableRuntime::new(Arc::new(NoTasks));
    runtime.set_engine(engine.clone());
    Arc::new(runtime)
}

pub(super) fn environment(
    store: &mut impl AsStoreMut,
    runtime: &SharedRuntime,
    config: &WasiConfig,
) -> anyhow::Result<WasiFunctionEnv> {
    let WasiConfig { args, env, stdin, stdout, stderr, preopens } = config;
    let mut wasi = WasiEnvBuilder::new("");
    *wasi.get_args_mut() = args.clone();
    wasi.add_envs(env.clone());
    wasi.set_stdin(Box::new(HostFile::stream(stdin.try_clone()?)));
    wasi.set_stdout(Box::new(HostFile::stream(stdout.try_clone()?)));
    wasi.set_stderr(Box::new(HostFile::stream(stderr.try_clone()?)));
    wasi.set_runtime(Arc::clone(runtime));
    wasi.set_disable_default_builtins(true);
    let mounts = MountFileSystem::new();
    for preopen in preopens {
        add_preopen(&mut wasi, &mounts, preopen, preopens)
            .with_context(|| format!("cannot open {} for the guest", preopen.host.display()))?;
    }
    wasi.set_mount_fs(mounts);
    Ok(wasi.finalize(store)?)
}

fn add_preopen(
    wasi: &mut WasiEnvBuilder,
    mounts: &MountFileSystem,
    preopen: &Preopen,
    all: &[Preopen],
) -> anyhow::Result<()> {
    let Preopen { host, guest } = preopen;
    let guest_path = Path::new(guest);
    let path = if guest_path.is_absolute() {
        mounts.mount(guest_path, Arc::new(HostDirectory::open(host)?))?;
        guest_path.to_owned()
    } else {
        path_of(host, all)?
    };
    wasi.add_preopen_build(|directory| {
        let directory = directory.directory(&path).read(true).write(true).create(true);
        // wasmer-wasix wants names without the first slash, and the root without a name.
        if guest == "/" { directory } else { directory.alias(guest) }
    })?;
    Ok(())
}

/// Where a directory with a relative name, such as `.`, is for the guest: wasmer-wasix knows files by their absolute
/// path.
fn path_of(host: &Path, preopens: &[Preopen]) -> anyhow::Result<PathBuf> {
    let host = host.canonicalize()?;
    let inside = |preopen: &Preopen| {
        let root = preopen.host.canonicalize().ok().filter(|_| preopen.guest.starts_with('/'))?;
        host.strip_prefix(root).ok().map(|rest| Path::new(&preopen.guest).join(rest))
    };
    preopens.iter().find_map(inside).context("a directory with a relative name must lie in one with an absolute name")
}

pub(super) fn imports(store: &mut impl AsStoreMut, wasi: &WasiFunctionEnv) -> Imports {
    let mut imports = generate_import_object_from_env(store, &wasi.env, WasiVersion::Snapshot1);
    mended::link(store, &mut imports, wasi);
    refusals::link(store, &mut imports, wasi);
    imports
}

/// Makes a new instance known to its WASI functions.
pub(super) fn bind_instance(
    store: &mut impl AsStoreMut,
    wasi: &mut WasiFunctionEnv,
    instance: &Instance,
) -> anyhow::Result<()> {
    let memory = match instance.exports.get_memory("memory") {
        Ok(memory) => memory.clone(),
        // No pointer is valid in this one.
        Err(_) => Memory::new(store, MemoryType::new(0, Some(0), false))?,
    };
    let handles = WasiModuleInstanceHandles::new(memory, store, instance.clone(), None);
    let handles = WasiModuleTreeHandles::Static(handles);
    Ok(wasi.initialize_handles_and_layout(store, instance.clone(), handles, None, false)?)
}
