//! A guest in its store: its state, its memory and exports, and the host functions bound to it.

use std::sync::Arc;

use host_abi::canonical::{
    Arguments, CoreType, CoreValue, Guest, GuestExports, GuestLen, GuestMemory, GuestPtr, OutOfBounds,
};
use host_abi::host_functions::{BegunCall, HostContext, HostFunction};
use tokio_util::sync::CancellationToken;
use wasmtime::{
    AsContext, AsContextMut, Extern, Func, FuncType, Instance, Linker, Memory, Module, ModuleExport, Store,
    StoreContextMut, StoreLimits, StoreLimitsBuilder, TypedFunc, UpdateDeadline, Val, ValType,
};

use super::wasi::Wasi;
use crate::engine::{GuestConfig, MOST_TABLE_ELEMENTS, Stop};

pub(super) struct GuestState {
    pub(super) wasi: Wasi,
    host: Arc<HostContext>,
    pub(super) cancel: Option<CancellationToken>,
    pub(super) limits: StoreLimits,
    /// There once the module's start function has returned.
    exports: Option<Exports>,
    /// The guest is inside an allocation that a host function waits for.
    allocating: bool,
}

/// What every host call needs, looked up once.
struct Exports {
    instance: Instance,
    memory: Option<Memory>,
    realloc: Option<TypedFunc<(u32, u32, u32, u32), u32>>,
}

impl GuestState {
    pub(super) fn new(config: GuestConfig) -> Self {
        let GuestConfig { wasi, host, initializer: _, cancel } = config;
        let limits = StoreLimitsBuilder::new().table_elements(MOST_TABLE_ELEMENTS as usize).build();
        Self { wasi: Wasi::new(wasi), host, cancel, limits, exports: None, allocating: false }
    }

    /// The guest's turn is over: it ends here if it was cancelled, and goes on once others had theirs.
    pub(super) fn on_epoch(&self) -> wasmtime::Result<UpdateDeadline> {
        let cancelled = self.cancel.as_ref().is_some_and(CancellationToken::is_cancelled);
        if cancelled { Err(Stop::Cancelled.into()) } else { Ok(UpdateDeadline::Yield(1)) }
    }
}

/// Where a module has what every host call needs.
pub(super) struct ExportPlaces {
    memory: Option<ModuleExport>,
    realloc: Option<ModuleExport>,
}

impl ExportPlaces {
    pub(super) fn of(module: &Module) -> Self {
        let place = |name| module.get_export_index(name);
        Self { memory: place("memory"), realloc: place("cabi_realloc") }
    }

    /// Makes the exports of a new instance known to its host functions.
    pub(super) fn bind(&self, store: &mut Store<GuestState>, instance: Instance) {
        let mut export = |place: &Option<ModuleExport>| instance.get_module_export(&mut *store, place.as_ref()?);
        let memory = export(&self.memory).and_then(Extern::into_memory);
        let realloc = export(&self.realloc).and_then(Extern::into_func);
        let realloc = realloc.and_then(|realloc| realloc.typed(&*store).ok());
        store.data_mut().exports = Some(Exports { instance, memory, realloc });
    }
}

/// Defines a host function as an import.
pub(super) fn link(linker: &mut Linker<GuestState>, function: &'static HostFunction) -> wasmtime::Result<()> {
    let core = |types: &[CoreType]| types.iter().copied().map(value_type).collect::<Vec<_>>();
    let signature = FuncType::new(linker.engine(), core(&function.signature.params), core(&function.signature.results));
    linker.func_new_async(function.interface, function.name, signature, move |mut caller, params, results| {
        let begun = begin(caller.as_context_mut(), function, params);
        Box::new(async move {
            let mut guest = RunningGuest { store: caller.as_context_mut() };
            let result = function.finish(begun?, &mut guest).await?;
            for (slot, value) in results.iter_mut().zip(result) {
                *slot = val(value);
            }
            Ok(())
        })
    })?;
    Ok(())
}

fn begin(
    store: StoreContextMut<'_, GuestState>,
    function: &HostFunction,
    params: &[Val],
) -> wasmtime::Result<BegunCall> {
    let state = store.data();
    if state.allocating {
        return Err(Stop::host_call_while_allocating(function.interface, function.name).into());
    }
    let host = Arc::clone(&state.host);
    let arguments = params.iter().map(core_value).collect::<Option<Arguments>>().unwrap_or_default();
    Ok(function.begin(host, &RunningGuest { store }, &arguments)?)
}

/// A guest inside a call of its own, or between calls.
pub(super) struct RunningGuest<'a> {
    pub(super) store: StoreContextMut<'a, GuestState>,
}

impl RunningGuest<'_> {
    fn memory(&self) -> Option<Memory> {
        self.store.data().exports.as_ref()?.memory
    }
}

impl GuestMemory for RunningGuest<'_> {
    fn size(&self) -> u64 {
        self.memory().map_or(0, |memory| memory.data_size(&self.store) as u64)
    }

    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let memory = self.memory().ok_or(OutOfBounds)?;
        memory.read(self.store.as_context(), address.0 as usize, into).map_err(|_| OutOfBounds)
    }

    fn copy(&self, address: GuestPtr, length: GuestLen) -> Result<Vec<u8>, OutOfBounds> {
        let memory = self.memory().ok_or(OutOfBounds)?.data(&self.store);
        let range = memory.get(address.0 as usize..).and_then(|rest| rest.get(..length.0 as usize));
        range.map(<[u8]>::to_vec).ok_or(OutOfBounds)
    }

    fn write(&mut self, address: GuestPtr, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let memory = self.memory().ok_or(OutOfBounds)?;
        memory.write(self.store.as_context_mut(), address.0 as usize, bytes).map_err(|_| OutOfBounds)
    }
}

impl Guest for RunningGuest<'_> {
    type Error = wasmtime::Error;

    async fn allocate(&mut self, align: u32, size: GuestLen) -> wasmtime::Result<GuestPtr> {
        // To share a function's type costs more than to lend it.
        let realloc = self.store.data_mut().exports.as_mut().and_then(|exports| exports.realloc.take());
        let realloc = realloc.ok_or_else(|| Stop::missing_export("cabi_realloc"))?;
        self.store.data_mut().allocating = true;
        let address = realloc.call_async(self.store.as_context_mut(), (0, 0, align, size.0)).await;
        let state = self.store.data_mut();
        state.allocating = false;
        if let Some(exports) = &mut state.exports {
            exports.realloc = Some(realloc);
        }
        Ok(GuestPtr(address?))
    }
}

impl GuestExports for RunningGuest<'_> {
    fn has_function(&mut self, export: &str) -> bool {
        let instance = self.store.data().exports.as_ref().map(|exports| exports.instance);
        instance.is_some_and(|instance| instance.get_func(&mut self.store, export).is_some())
    }

    async fn call(&mut self, export: &str, params: &[CoreValue]) -> wasmtime::Result<Option<CoreValue>> {
        let instance = self.store.data().exports.as_ref().map(|exports| exports.instance);
        let function = instance.and_then(|instance| instance.get_func(&mut self.store, export));
        let function = function.ok_or_else(|| Stop::missing_export(export))?;
        if let Some(result) = call_typed(&mut self.store, function, params).await {
            return result;
        }
        let params: Vec<Val> = params.iter().copied().map(val).collect();
        let signature = function.ty(&self.store);
        let fits = params.len() == signature.params().len()
            && params.iter().zip(signature.params()).all(|(param, wanted)| ValType::eq(&param_type(param), &wanted))
            && signature.results().len() <= 1;
        if !fits {
            return Err(Stop::missing_export(export).into());
        }
        let mut results = vec![Val::I32(0); signature.results().len()];
        function.call_async(self.store.as_context_mut(), &params, &mut results).await?;
        Ok(results.first().and_then(core_value))
    }
}

/// Calls a function of one of the types that a request needs, without a look at each value's type: commands and
/// initializers, handlers of requests, and what frees their answers.
async fn call_typed(
    store: &mut StoreContextMut<'_, GuestState>,
    function: Func,
    params: &[CoreValue],
) -> Option<wasmtime::Result<Option<CoreValue>>> {
    use CoreValue::I32;
    match *params {
        [] => {
            let function = function.typed::<(), ()>(&*store).ok()?;
            Some(function.call_async(store, ()).await.map(|()| None))
        }
        [I32(a)] => {
            let function = function.typed::<u32, ()>(&*store).ok()?;
            Some(function.call_async(store, a).await.map(|()| None))
        }
        [I32(a), I32(b), I32(c), I32(d), I32(e), I32(f), I32(g), I32(h), I32(i), I32(j)] => {
            type Ten = (u32, u32, u32, u32, u32, u32, u32, u32, u32, u32);
            let function = function.typed::<Ten, u32>(&*store).ok()?;
            let result = function.call_async(store, (a, b, c, d, e, f, g, h, i, j)).await;
            Some(result.map(|result| Some(I32(result))))
        }
        _ => None,
    }
}

fn value_type(core: CoreType) -> ValType {
    match core {
        CoreType::I32 => ValType::I32,
        CoreType::I64 => ValType::I64,
    }
}

fn param_type(param: &Val) -> ValType {
    match param {
        Val::I64(_) => ValType::I64,
        _ => ValType::I32,
    }
}

fn val(value: CoreValue) -> Val {
    match value {
        CoreValue::I32(value) => Val::I32(value.cast_signed()),
        CoreValue::I64(value) => Val::I64(value.cast_signed()),
    }
}

fn core_value(value: &Val) -> Option<CoreValue> {
    match value {
        Val::I32(value) => Some(CoreValue::I32(value.cast_unsigned())),
        Val::I64(value) => Some(CoreValue::I64(value.cast_unsigned())),
        _ => None,
    }
}
