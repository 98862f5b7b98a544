//! The engine `wasmtime`: guests run on fibers, so that one waiting for its host holds no thread.

mod config;
mod guest;
mod read_only;
mod stop;
mod streams;
mod wasi;
mod watch;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use host_abi::canonical::{ExportCall, GuestExports as _, call_export};
use host_abi::host_functions::host_functions;
use wasmtime::{AsContextMut as _, InstancePre, Linker, Store};
use xxhash_rust::xxh3::Xxh3;

use crate::artifact_cache::Artifact;
use crate::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop};
use guest::{GuestState, RunningGuest};
use watch::Watch;

const NAME: &str = "wasmtime";

pub struct Wasmtime {
    engine: wasmtime::Engine,
}

impl Wasmtime {
    pub fn new() -> Self {
        Self { engine: config::engine() }
    }
}

impl Default for Wasmtime {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for Wasmtime {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fingerprint(&self) -> String {
        let mut hasher = Xxh3::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        let artifact = self.engine.precompile_module(module);
        artifact.map_err(|error| CompileError { engine: NAME, reason: format!("{error:#}") })
    }

    #[expect(unsafe_code, reason = "the caller vouches for the artifact")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        let load = || -> wasmtime::Result<LinkedModule> {
            let file = artifact.file().try_clone()?;
            // SAFETY: this function's own contract.
            let module = unsafe { wasmtime::Module::deserialize_open_file(&self.engine, file) }?;
            let mut linker = Linker::new(&self.engine);
            wasi::link(&mut linker)?;
            for function in host_functions() {
                guest::link(&mut linker, function)?;
            }
            Ok(LinkedModule {
                linked: linker.instantiate_pre(&module)?,
                watch: Arc::new(Watch::start(self.engine.clone())?),
            })
        };
        let module = load().map_err(|error| LoadError { engine: NAME, reason: format!("{error:#}") })?;
        Ok(Arc::new(module))
    }
}

struct LinkedModule {
    linked: InstancePre<GuestState>,
    watch: Arc<Watch>,
}

#[async_trait]
impl Module for LinkedModule {
    async fn instantiate(&self, guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        let engine = self.linked.module().engine();
        let mut store = Store::new(engine, GuestState::new(guest).map_err(stop::from_error)?);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|guest| guest.data().on_epoch());
        let cancel = store.data().cancel.clone();
        let _running = self.watch.running();
        let instantiated = cancel.run_until_cancelled(self.linked.instantiate_async(&mut store)).await;
        let instance = instantiated.ok_or(Stop::Cancelled)?.map_err(stop::from_error)?;
        guest::bind_exports(&mut store, instance);
        Ok(Box::new(StartedInstance { store, watch: Arc::clone(&self.watch) }))
    }
}

struct StartedInstance {
    store: Store<GuestState>,
    watch: Arc<Watch>,
}

impl StartedInstance {
    /// Runs a call of the guest until it returns or is cancelled.
    async fn until_cancelled<T>(
        &mut self,
        call: impl AsyncFnOnce(RunningGuest<'_>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let _running = self.watch.running();
        let cancel = self.store.data().cancel.clone();
        let guest = RunningGuest { store: self.store.as_context_mut() };
        let ended = cancel.run_until_cancelled(call(guest)).await;
        ended.ok_or(Stop::Cancelled)?.map_err(stop::from_error)
    }
}

#[async_trait]
impl Instance for StartedInstance {
    async fn run(&mut self, export: &str) -> Result<(), Stop> {
        self.until_cancelled(async |mut guest| guest.call(export, &[]).await).await?;
        Ok(())
    }

    async fn call(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.until_cancelled(async |mut guest| call_export(&mut guest, call).await).await
    }
}
