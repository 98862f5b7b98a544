//! The engine `wasmtime`: guests run on fibers, so that one waiting for its host holds no thread.

mod config;
mod guest;
mod read_only;
mod stop;
mod streams;
mod wasi;
mod watch;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use host_abi::canonical::{ExportCall, GuestExports as _, call_export};
use host_abi::host_functions::host_functions;
use wasmtime::{AsContextMut as _, InstancePre, Linker, Store};
use xxhash_rust::xxh3::Xxh3;

use crate::artifact_cache::Artifact;
use crate::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop};
use guest::{ExportPlaces, GuestState, RunningGuest};
use watch::Watch;

const NAME: &str = "wasmtime";

pub struct Wasmtime {
    /// Made when it is needed first: a guest host may run another engine, or none.
    engine: LazyLock<wasmtime::Engine>,
}

impl Wasmtime {
    pub fn new() -> Self {
        Self { engine: LazyLock::new(config::engine) }
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
    unsafe fn load(&self, artifact: &Artifact, at_once: u32) -> Result<Arc<dyn Module>, LoadError> {
        if at_once > 1 {
            // SAFETY: this function's own contract.
            let pooled = config::pooling_engine(at_once).and_then(|engine| unsafe { load(&engine, artifact) });
            match pooled {
                Ok(module) => return Ok(module),
                Err(error) => tracing::info!(error = format!("{error:#}"), "instances are made without a pool"),
            }
        }
        // SAFETY: this function's own contract.
        let module = unsafe { load(&self.engine, artifact) };
        module.map_err(|error| LoadError { engine: NAME, reason: format!("{error:#}") })
    }
}

/// # Safety
/// As for [`Engine::load`].
#[expect(unsafe_code, reason = "the caller vouches for the artifact")]
unsafe fn load(engine: &wasmtime::Engine, artifact: &Artifact) -> wasmtime::Result<Arc<dyn Module>> {
    let file = artifact.file().try_clone()?;
    // SAFETY: this function's own contract.
    let module = unsafe { wasmtime::Module::deserialize_open_file(engine, file) }?;
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    for function in host_functions() {
        guest::link(&mut linker, function)?;
    }
    let linked = linker.instantiate_pre(&module)?;
    let (exports, watch) = (ExportPlaces::of(&module), Arc::new(Watch::start(engine.clone())?));
    Ok(Arc::new(LinkedModule { linked, exports, watch }))
}

struct LinkedModule {
    linked: InstancePre<GuestState>,
    exports: ExportPlaces,
    watch: Arc<Watch>,
}

#[async_trait]
impl Module for LinkedModule {
    async fn instantiate(&self, guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        let engine = self.linked.module().engine();
        let mut store = Store::new(engine, GuestState::new(guest));
        store.epoch_deadline_callback(|guest| guest.data().on_epoch());
        let mut guest = StartedInstance { store, watch: Arc::clone(&self.watch) };
        let instantiate = async |guest: RunningGuest<'_>| self.linked.instantiate_async(guest.store).await;
        let instance = guest.until_cancelled(instantiate).await?;
        self.exports.bind(&mut guest.store, instance);
        Ok(Box::new(guest))
    }
}

struct StartedInstance {
    store: Store<GuestState>,
    watch: Arc<Watch>,
}

impl StartedInstance {
    /// Has the guest run until it returns or is cancelled.
    async fn until_cancelled<T>(
        &mut self,
        call: impl AsyncFnOnce(RunningGuest<'_>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let _running = self.watch.running();
        self.store.set_epoch_deadline(1);
        let cancel = self.store.data().cancel.clone();
        let guest = RunningGuest { store: self.store.as_context_mut() };
        let ended = cancel.run_until_cancelled(call(guest)).await.ok_or(Stop::Cancelled)?;
        match self.store.data_mut().wasi.failure() {
            Some(failure) => Err(stop::failed(failure)),
            None => ended.map_err(stop::from_error),
        }
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
