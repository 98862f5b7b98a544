//! The engine `wasmtime`: guests run on fibers, so that one waiting for its host holds no thread.

mod config;
mod guest;
mod memory;
mod paths;
mod stop;
mod streams;
mod wasi;
mod watch;

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use host_abi::canonical::{ExportCall, GuestExports as _, call_export};
use host_abi::host_functions::host_functions;
use wasmtime::{AsContextMut as _, InstancePre, Linker, Store};
use xxhash_rust::xxh3::Xxh3;

use crate::artifact_cache::Artifact;
use crate::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop, initialized};
use crate::module_data;
use guest::{ExportPlaces, GuestState, RunningGuest};
use watch::Watch;

const NAME: &str = "wasmtime";

/// An artifact fits the engine it was compiled with.
pub struct Wasmtime {
    copying: LazyLock<wasmtime::Engine>,
    mapping: LazyLock<wasmtime::Engine>,
}

impl Wasmtime {
    pub fn new() -> Self {
        Self { copying: LazyLock::new(config::copying_engine), mapping: LazyLock::new(config::mapping_engine) }
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
        // The other engine differs only in what is fixed as well.
        self.copying.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        let engine = if module_data::is_much(module) { &self.mapping } else { &self.copying };
        engine.precompile_module(module).map_err(|error| CompileError { engine: NAME, reason: format!("{error:#}") })
    }

    #[expect(unsafe_code, reason = "the caller vouches for the artifact")]
    unsafe fn load(&self, artifact: &Artifact) -> Result<Arc<dyn Module>, LoadError> {
        // SAFETY: this function's own contract.
        let copied = unsafe { deserialize(&self.copying, artifact) };
        // SAFETY: as above.
        let module = copied.or_else(|_| unsafe { deserialize(&self.mapping, artifact) });
        let linked = module.and_then(|module| link(&module));
        linked.map_err(|error| LoadError { engine: NAME, reason: format!("{error:#}") })
    }
}

/// # Safety
/// As for [`Engine::load`].
#[expect(unsafe_code, reason = "the caller vouches for the artifact")]
unsafe fn deserialize(engine: &wasmtime::Engine, artifact: &Artifact) -> wasmtime::Result<wasmtime::Module> {
    let file = artifact.file().try_clone()?;
    // SAFETY: this function's own contract.
    unsafe { wasmtime::Module::deserialize_open_file(engine, file) }
}

fn link(module: &wasmtime::Module) -> wasmtime::Result<Arc<dyn Module>> {
    let engine = module.engine();
    let mut linker = Linker::new(engine);
    wasi::link(&mut linker)?;
    for function in host_functions() {
        guest::link(&mut linker, function)?;
    }
    let linked = linker.instantiate_pre(module)?;
    let (exports, watch) = (ExportPlaces::of(module), Arc::new(Watch::start(engine.clone())?));
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
        Ok(Box::new(self.start(guest, Arc::clone(&self.watch)).await?))
    }

    async fn call_once(&self, guest: GuestConfig, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.start(guest, &*self.watch).await?.make(call).await
    }
}

impl LinkedModule {
    async fn start<W: Deref<Target = Watch> + Send>(
        &self,
        guest: GuestConfig,
        watch: W,
    ) -> Result<StartedInstance<W>, Stop> {
        let (engine, initializer) = (self.linked.module().engine(), guest.initializer);
        let mut store = Store::new(engine, GuestState::new(guest));
        store.limiter(|guest| &mut guest.limits);
        store.epoch_deadline_callback(|guest| guest.data().on_epoch());
        let mut guest = StartedInstance { store, watch };
        let instantiate = async |guest: RunningGuest<'_>| self.linked.instantiate_async(guest.store).await;
        let instance = guest.until_cancelled(instantiate).await?;
        self.exports.bind(&mut guest.store, instance);
        if let Some(initializer) = initializer {
            initialized(guest.call_without_parameters(initializer).await)?;
        }
        Ok(guest)
    }
}

struct StartedInstance<W> {
    store: Store<GuestState>,
    /// The module's, shared by an instance that may outlive it and borrowed by one that does not.
    watch: W,
}

impl<W: Deref<Target = Watch> + Send> StartedInstance<W> {
    /// Has the guest run until it returns or is cancelled.
    async fn until_cancelled<T>(
        &mut self,
        call: impl AsyncFnOnce(RunningGuest<'_>) -> wasmtime::Result<T>,
    ) -> Result<T, Stop> {
        let _running = self.watch.running();
        self.store.set_epoch_deadline(1);
        let cancel = self.store.data().cancel.clone();
        let call = call(RunningGuest { store: self.store.as_context_mut() });
        let ended = match cancel {
            Some(cancel) => cancel.run_until_cancelled(call).await.ok_or(Stop::Cancelled)?,
            None => call.await,
        };
        match self.store.data_mut().wasi.failure() {
            Some(failure) => Err(stop::failed(failure)),
            None => ended.map_err(stop::from_error),
        }
    }

    async fn call_without_parameters(&mut self, export: &str) -> Result<(), Stop> {
        self.until_cancelled(async |mut guest| guest.call(export, &[]).await).await?;
        Ok(())
    }

    async fn make(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.until_cancelled(async |mut guest| call_export(&mut guest, call).await).await
    }
}

#[async_trait]
impl Instance for StartedInstance<Arc<Watch>> {
    async fn run(&mut self, export: &str) -> Result<(), Stop> {
        self.call_without_parameters(export).await
    }

    async fn call(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop> {
        self.make(call).await
    }
}
