//! WASI preview 1 through wasmer-wasix.

mod files;
mod mended;
mod refusals;
mod tasks;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use wasmer::{AsStoreMut, Engine, Imports, Instance, Memory, MemoryType};
use wasmer_wasix::virtual_fs::MountFileSystem;
use wasmer_wasix::{
    PluggableRuntime, Runtime, WasiEnv, WasiEnvBuilder, WasiFunctionEnv, WasiModuleInstanceHandles,
    WasiModuleTreeHandles, WasiVersion, generate_import_object_from_env,
};

use crate::engine::{Preopen, WasiConfig};
use files::{HostDirectory, HostFile};
use tasks::NoTasks;

/// What the guests of a module share: no network, no packages, no processes and no threads, but the directories that were
/// opened for them.
pub(super) struct SharedWasi {
    runtime: Arc<dyn Runtime + Send + Sync>,
    /// By their paths.
    directories: Mutex<BTreeMap<PathBuf, Arc<HostDirectory>>>,
}

impl SharedWasi {
    pub(super) fn new(engine: &Engine) -> Self {
        let mut runtime = PluggableRuntime::new(Arc::new(NoTasks));
        runtime.set_engine(engine.clone());
        Self { runtime: Arc::new(runtime), directories: Mutex::default() }
    }

    fn directory(&self, path: &Path) -> io::Result<Arc<HostDirectory>> {
        let mut directories = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = directories.get(path) {
            return Ok(Arc::clone(directory));
        }
        let directory = Arc::new(HostDirectory::open(path)?);
        directories.insert(path.to_owned(), Arc::clone(&directory));
        Ok(directory)
    }

    fn builder(&self, mounts: MountFileSystem) -> WasiEnvBuilder {
        let mut wasi = WasiEnvBuilder::new("");
        wasi.set_runtime(Arc::clone(&self.runtime));
        wasi.set_disable_default_builtins(true);
        wasi.set_mount_fs(mounts);
        wasi
    }
}

/// For a store without a guest.
pub(super) fn empty_environment(shared: &SharedWasi) -> anyhow::Result<WasiEnv> {
    Ok(shared.builder(MountFileSystem::new()).build()?)
}

pub(super) fn environment(shared: &SharedWasi, config: &WasiConfig) -> anyhow::Result<WasiEnv> {
    let WasiConfig { args, env, stdin, stdout, stderr, preopens } = config;
    let mounts = MountFileSystem::new();
    for Preopen { host, guest } in preopens {
        if guest.starts_with('/') {
            let directory = shared.directory(host);
            let directory = directory.with_context(|| format!("cannot open {} for the guest", host.display()))?;
            mounts.mount(guest, directory)?;
        }
    }
    let mut wasi = shared.builder(mounts);
    *wasi.get_args_mut() = args.clone();
    wasi.add_envs(env.iter().map(|(name, value)| (name, value)));
    wasi.set_stdin(Box::new(HostFile::stream(Arc::clone(stdin))));
    wasi.set_stdout(Box::new(HostFile::stream(Arc::clone(stdout))));
    wasi.set_stderr(Box::new(HostFile::stream(Arc::clone(stderr))));
    for preopen in preopens {
        add_preopen(&mut wasi, preopen, preopens)?;
    }
    Ok(wasi.build()?)
}

fn add_preopen(wasi: &mut WasiEnvBuilder, preopen: &Preopen, all: &[Preopen]) -> anyhow::Result<()> {
    let Preopen { host, guest } = preopen;
    let path = if guest.starts_with('/') { PathBuf::from(guest) } else { path_of(host, all)? };
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
