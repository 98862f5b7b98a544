//! The engine `wasmer`: each guest has a thread for itself, which waits while the guest waits for its host.

mod config;
mod guest;
mod interrupt;
mod memory;
mod signal;
mod stop;
mod thread;
mod wasi;

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use futures::FutureExt as _;
use host_abi::canonical::{ExportCall, GuestExports as _, call_export};
use host_abi::host_functions::{HostFunction, host_functions};
use tokio_util::sync::CancellationToken;
use wasmer::{FunctionEnv, Imports, Store};
use wasmer_wasix::WasiFunctionEnv;

use crate::artifact_cache::Artifact;
use crate::engine::{CompileError, Engine, GuestConfig, Instance, LoadError, Module, Stop, WasiConfig};
use guest::{Exports, GuestState, RunningGuest};
use interrupt::{Leash, Reach};
use thread::GuestThread;
use wasi::SharedRuntime;

const NAME: &str = "wasmer";

/// Nothing is made before it is needed: see [`config::engine`].
#[derive(Default)]
pub struct Wasmer;

impl Wasmer {
    pub fn new() -> Self {
        Self
    }
}

impl Engine for Wasmer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn fingerprint(&self) -> String {
        config::fingerprint(&config::engine())
    }

    fn compile(&self, module: &[u8]) -> Result<Vec<u8>, CompileError> {
        let compile = || -> anyhow::Result<Vec<u8>> {
            let module = wasmer::Module::new(&config::engine(), module)?;
            Ok(module.serialize()?.into())
        };
        compile().map_err(|error| CompileError { engine: NAME, reason: format!("{error:#}") })
    }

    #[expect(unsafe_code, reason = "the caller vouches for the artifact")]
    unsafe fn load(&self, artifact: &Artifact, _: u32) -> Result<Arc<dyn Module>, LoadError> {
        let load = || -> anyhow::Result<LinkedModule> {
            let engine = config::engine();
            // SAFETY: this function's own contract.
            let module = unsafe { wasmer::Module::deserialize_unchecked(&engine, artifact.map()?) }?;
            let wasi = wasi::shared_runtime(&engine);
            let host_functions = host_functions().into_iter().map(Arc::new).collect();
            let code = signal::code(&module);
            let module = LinkedModule { engine, module, code, wasi, host_functions };
            module.check_imports()?;
            Ok(module)
        };
        let module = load().map_err(|error| LoadError { engine: NAME, reason: format!("{error:#}") })?;
        Ok(Arc::new(module))
    }
}

#[derive(Clone)]
struct LinkedModule {
    engine: wasmer::Engine,
    module: wasmer::Module,
    /// Its native code.
    code: Range<usize>,
    wasi: SharedRuntime,
    host_functions: Arc<[Arc<HostFunction>]>,
}

impl LinkedModule {
    /// Linking is wasmer's last step before the guest runs. It is tried out here, so that a wrong import shows before
    /// any guest is started.
    fn check_imports(&self) -> anyhow::Result<()> {
        let mut store = signal::store(&self.engine);
        let guest = GuestConfig {
            wasi: Arc::new(WasiConfig::empty()?),
            host: Arc::default(),
            cancel: CancellationToken::default(),
        };
        let Links { imports, .. } = self.link(&mut store, guest)?;
        for import in self.module.imports() {
            let (interface, name) = (import.module(), import.name());
            let known = imports.get_export(interface, name);
            let known = known.with_context(|| format!("unknown import {interface}.{name}"))?.ty(&store);
            ensure!(known == *import.ty(), "{interface}.{name} is {known:?}, not {:?}", import.ty());
        }
        Ok(())
    }

    fn link(&self, store: &mut Store, guest: GuestConfig) -> anyhow::Result<Links> {
        let GuestConfig { wasi, host, cancel } = guest;
        let wasi = wasi::environment(store, &self.wasi, &wasi)?;
        let mut imports = wasi::imports(store, &wasi);
        let state = FunctionEnv::new(store, GuestState { host, cancel, exports: None, allocating: false });
        for function in &*self.host_functions {
            guest::link(store, &mut imports, &state, function);
        }
        Ok(Links { wasi, state, imports })
    }

    /// On the guest's own thread.
    fn start(&self, guest: GuestConfig, reach: Arc<Reach>) -> Result<StartedGuest, Stop> {
        signal::interrupt_in(&self.code);
        let mut store = signal::store(&self.engine);
        let Links { mut wasi, state, imports } = self.link(&mut store, guest).map_err(stop::failed)?;
        reach.set(store.interrupter(), wasi.data(&store).process.clone());
        let instance = wasmer::Instance::new(&mut store, &self.module, &imports).map_err(stop::from_instantiation)?;
        wasi::bind_instance(&mut store, &mut wasi, &instance).map_err(stop::failed)?;
        let exports = Exports::new(&store, &instance);
        state.as_mut(&mut store).exports = Some(exports);
        Ok(StartedGuest { store, state, _reach: reach })
    }
}

/// What a module is linked to, all of it in one store.
struct Links {
    wasi: WasiFunctionEnv,
    state: FunctionEnv<GuestState>,
    imports: Imports,
}

/// A guest with its store, which is bound to the guest's thread.
struct StartedGuest {
    store: Store,
    state: FunctionEnv<GuestState>,
    _reach: Arc<Reach>,
}

impl StartedGuest {
    fn running(&mut self) -> RunningGuest<'_> {
        RunningGuest { env: self.state.clone().into_mut(&mut self.store) }
    }
}

#[async_trait]
impl Module for LinkedModule {
    async fn instantiate(&self, mut guest: GuestConfig) -> Result<Box<dyn Instance>, Stop> {
        let cancel = guest.cancel.child_token();
        guest.cancel = cancel.clone();
        let reach = Arc::new(Reach::default());
        let leash = Leash::new(cancel, &reach);
        let module = self.clone();
        let thread = leash.until_ended(GuestThread::start(move || module.start(guest, reach))).await?;
        Ok(Box::new(StartedInstance { thread, leash }))
    }
}

struct StartedInstance {
    thread: GuestThread,
    leash: Leash,
}

#[async_trait]
impl Instance for StartedInstance {
    async fn run(&mut self, export: &str) -> Result<(), Stop> {
        let export = export.to_owned();
        let job = move |guest: &mut StartedGuest| at_once(guest.running().call(&export, &[])).map(drop);
        self.leash.until_ended(self.thread.run(job)).await
    }

    async fn call(&mut self, call: &mut dyn ExportCall) -> Result<(), Stop> {
        let mut call = call.detach();
        let job = move |guest: &mut StartedGuest| at_once(call_export(&mut guest.running(), &mut *call));
        self.leash.until_ended(self.thread.run(job)).await
    }
}

/// What a guest does on its own thread is done when it returns.
fn at_once<T>(done: impl Future<Output = T>) -> T {
    match done.now_or_never() {
        Some(done) => done,
        None => unreachable!("a guest on its own thread waits there"),
    }
}
