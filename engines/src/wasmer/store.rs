//! A store with everything that a module imports, for one guest after the other: to make the imports takes longer than to
//! make an instance.
//!
//! Nothing of a guest stays. Its instance, memories, tables, globals and functions are removed from the store, its files and
//! all else that its imports work on are dropped; the imports themselves have no state. After a guest that did not end
//! well, or that was cancelled, the store is not used again.

use std::mem;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use host_abi::canonical::GuestExports as _;
use host_abi::host_functions::host_functions;
use wasmer::sys::vm::{
    StoreObject, StoreObjects, VMExceptionObj, VMExternObj, VMFunction, VMFunctionEnvironment, VMGlobal, VMInstance,
    VMMemory, VMTable, VMTag,
};
use wasmer::{AsStoreMut as _, Extern, FunctionEnv, Instance, Store};
use wasmer_wasix::{WasiEnv, WasiFunctionEnv};

use super::guest::{self, Exports, GuestState, RunningGuest};
use super::interrupt::GuestHandle;
use super::{LoadedModule, at_once, lengths, signal, stop, wasi};
use crate::engine::{GuestConfig, Stop, initialized};

/// A store without a guest. It is bound to the thread it was made on.
pub(super) struct LinkedStore {
    module: Arc<LoadedModule>,
    store: Store,
    /// No guest's, while there is none.
    wasi: WasiFunctionEnv,
    state: FunctionEnv<GuestState>,
    /// In the order of the module.
    imports: Vec<Extern>,
    /// What there is without a guest.
    objects: ObjectCounts,
}

impl LinkedStore {
    /// # Errors
    /// The module imports what is not known, or with another type.
    pub(super) fn new(module: &Arc<LoadedModule>) -> anyhow::Result<Self> {
        let mut store = signal::store(&module.engine);
        let wasi = WasiFunctionEnv::new(&mut store, wasi::empty_environment(&module.wasi)?);
        let state = FunctionEnv::new(&mut store, GuestState::default());
        let mut known = wasi::imports(&mut store, &wasi);
        for function in host_functions() {
            guest::link(&mut store, &mut known, &state, function);
        }
        let imports = module.module.imports().map(|import| {
            let (interface, name) = (import.module(), import.name());
            let known = known.get_export(interface, name);
            let known = known.with_context(|| format!("unknown import {interface}.{name}"))?;
            let ty = known.ty(&store);
            ensure!(ty == *import.ty(), "{interface}.{name} is {ty:?}, not {:?}", import.ty());
            Ok(known)
        });
        let imports = imports.collect::<anyhow::Result<_>>()?;
        let objects = ObjectCounts::of(store.objects_mut().as_sys());
        Ok(Self { module: Arc::clone(module), store, wasi, state, imports, objects })
    }

    pub(super) fn is_of(&self, module: &Arc<LoadedModule>) -> bool {
        Arc::ptr_eq(&self.module, module)
    }

    /// Makes a guest, its start function run, and its initializer.
    pub(super) fn start(mut self, guest: GuestConfig, handle: Arc<GuestHandle>) -> Result<StartedGuest, Stop> {
        signal::prepare_guest(&self.module.code, handle.interrupted());
        let GuestConfig { wasi, host, initializer, cancel } = guest;
        let wasi = wasi::environment(&self.module.wasi, &wasi).map_err(stop::failed)?;
        handle.open(self.store.interrupter(), wasi.process.clone());
        let empty_wasi = mem::replace(self.wasi.data_mut(&mut self.store), wasi);
        *self.state.as_mut(&mut self.store) =
            GuestState { host, cancel: cancel.unwrap_or_default(), ..GuestState::default() };
        let mut guest = StartedGuest { linked: self, empty_wasi, handle, is_well: true };
        match guest.initialize(initializer) {
            Ok(()) => Ok(guest),
            Err(stop) => {
                guest.end();
                Err(stop)
            }
        }
    }
}

/// A guest in its store.
pub(super) struct StartedGuest {
    linked: LinkedStore,
    /// For the store without a guest.
    empty_wasi: WasiEnv,
    handle: Arc<GuestHandle>,
    /// Every call so far has returned.
    is_well: bool,
}

impl StartedGuest {
    /// Makes its instance, whose start function runs, and calls its initializer.
    fn initialize(&mut self, initializer: Option<&str>) -> Result<(), Stop> {
        let LinkedStore { module, store, wasi, state, imports, .. } = &mut self.linked;
        let instance = Instance::new_by_index(store, &module.module, imports).map_err(stop::from_instantiation)?;
        wasi::bind_instance(store, wasi, &instance).map_err(stop::failed)?;
        let exports = Exports::new(store, &instance);
        state.as_mut(store).exports = Some(exports);
        let Some(initializer) = initializer else { return Ok(()) };
        initialized(self.run(|mut guest| at_once(guest.call(initializer, &[])).map(drop)))
    }

    /// Has the guest do something.
    pub(super) fn run<T>(&mut self, work: impl FnOnce(RunningGuest<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
        let LinkedStore { store, state, .. } = &mut self.linked;
        let done = work(RunningGuest { env: state.clone().into_mut(store) });
        self.is_well &= done.is_ok();
        done
    }

    /// The store without the guest, if it can be used again.
    pub(super) fn end(self) -> Option<LinkedStore> {
        let Self { mut linked, empty_wasi, handle, is_well } = self;
        // From here on, no interrupt is meant for this store. One that was sent before shows in the token.
        handle.close();
        lengths::forget();
        let LinkedStore { store, wasi, state, objects, .. } = &mut linked;
        let guest = mem::take(state.as_mut(store));
        if !is_well || guest.cancel.is_cancelled() {
            return None;
        }
        *wasi.data_mut(store) = empty_wasi;
        objects.restore(store.objects_mut().as_sys_mut());
        Some(linked)
    }
}

/// How many objects of each kind are in a store.
macro_rules! object_counts {
    ($($field:ident: $object:ty),*) => {
        struct ObjectCounts {
            $($field: usize),*
        }

        impl ObjectCounts {
            fn of(objects: &StoreObjects) -> Self {
                Self { $($field: <$object>::list(objects).len()),* }
            }

            /// Removes what was added since.
            fn restore(&self, objects: &mut StoreObjects) {
                $(<$object>::list_mut(objects).truncate(self.$field);)*
            }
        }
    };
}

// In the order in which a store drops them.
object_counts! {
    memories: VMMemory,
    tables: VMTable,
    globals: VMGlobal,
    functions: VMFunction,
    instances: VMInstance,
    extern_objects: VMExternObj,
    exceptions: VMExceptionObj,
    tags: VMTag,
    function_environments: VMFunctionEnvironment
}
