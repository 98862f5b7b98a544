//! A guest in its store: its state, its memory and exports, and the host functions bound to it.

use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt as _;
use host_abi::canonical::{
    Arguments, CoreType, CoreValue, Guest, GuestExports, GuestLen, GuestMemory, GuestPtr, OutOfBounds, Signature,
};
use host_abi::host_functions::{HostContext, HostFunction};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use wasmer::{
    AsStoreMut, Function, FunctionEnv, FunctionEnvMut, FunctionType, Imports, Instance, Memory, RuntimeError, Type,
    TypedFunction, Value,
};

use super::stop;
use crate::engine::Stop;

#[derive(Default)]
pub(super) struct GuestState {
    pub(super) host: Arc<HostContext>,
    pub(super) cancel: CancellationToken,
    /// There once the module's start function has returned.
    pub(super) exports: Option<Exports>,
    /// The guest is inside an allocation that a host function waits for.
    pub(super) allocating: bool,
}

/// What every host call needs, looked up once.
#[derive(Clone)]
pub(super) struct Exports {
    instance: Instance,
    memory: Option<Memory>,
    realloc: Option<TypedFunction<(u32, u32, u32, u32), u32>>,
}

impl Exports {
    pub(super) fn new(store: &impl AsStoreMut, instance: &Instance) -> Self {
        let exports = &instance.exports;
        Self {
            instance: instance.clone(),
            memory: exports.get_memory("memory").ok().cloned(),
            realloc: exports.get_typed_function(store, "cabi_realloc").ok(),
        }
    }
}

/// Defines a host function as an import.
pub(super) fn link(
    store: &mut impl AsStoreMut,
    imports: &mut Imports,
    state: &FunctionEnv<GuestState>,
    function: &'static HostFunction,
) {
    let (interface, name) = (function.interface, function.name);
    imports.define(
        interface,
        name,
        typed_import(store, state, function).unwrap_or_else(|| import(store, state, function)),
    );
}

/// For functions of any type.
fn import(store: &mut impl AsStoreMut, state: &FunctionEnv<GuestState>, function: &'static HostFunction) -> Function {
    let core = |types: &[CoreType]| types.iter().copied().map(value_type).collect::<Vec<_>>();
    let signature = FunctionType::new(core(&function.signature.params), core(&function.signature.results));
    Function::new_with_env(store, state, signature, move |env, params| {
        let arguments = params.iter().map(core_value).collect::<Option<Arguments>>().unwrap_or_default();
        Ok(serve(function, env, &arguments)?.map(value).into_iter().collect())
    })
}

/// For functions of `i32`s without a result, as most are: the guest's code calls the host's without a detour.
fn typed_import(
    store: &mut impl AsStoreMut,
    state: &FunctionEnv<GuestState>,
    function: &'static HostFunction,
) -> Option<Function> {
    let Signature { params, results } = &function.signature;
    if !results.is_empty() || params.iter().any(|param| *param != CoreType::I32) {
        return None;
    }
    macro_rules! by_arity {
        ($($arity:literal: $($argument:ident)+;)+) => {
            match params.len() {
                $($arity => {
                    let import = move |env: FunctionEnvMut<'_, GuestState>, $($argument: u32),+| {
                        serve(function, env, &[$(CoreValue::I32($argument)),+]).map(drop)
                    };
                    Some(Function::new_typed_with_env(store, state, import))
                })+
                _ => None,
            }
        };
    }
    by_arity! {
        1: a;
        2: a b;
        3: a b c;
        4: a b c d;
        5: a b c d e;
        6: a b c d e f;
        7: a b c d e f g;
        8: a b c d e f g h;
        9: a b c d e f g h i;
        10: a b c d e f g h i j;
        11: a b c d e f g h i j k;
        12: a b c d e f g h i j k l;
        13: a b c d e f g h i j k l m;
        14: a b c d e f g h i j k l m n;
        15: a b c d e f g h i j k l m n o;
        16: a b c d e f g h i j k l m n o p;
        17: a b c d e f g h i j k l m n o p q;
    }
}

/// Serves a guest's call. Its thread waits.
fn serve(
    function: &HostFunction,
    env: FunctionEnvMut<'_, GuestState>,
    arguments: &[CoreValue],
) -> Result<Option<CoreValue>, RuntimeError> {
    let GuestState { host, cancel, exports: _, allocating } = env.data();
    let stopped = |stop: Stop| RuntimeError::user(stop.into());
    if *allocating {
        return Err(stopped(Stop::host_call_while_allocating(function.interface, function.name)));
    }
    let (host, cancel) = (Arc::clone(host), cancel.clone());
    let mut guest = RunningGuest { env };
    let mut call = pin!(function.call(host, &mut guest, arguments));
    // Most stores in memory answer at once.
    let result = call.as_mut().now_or_never().unwrap_or_else(|| {
        Handle::current().block_on(cancel.run_until_cancelled(call)).unwrap_or(Err(Stop::Cancelled))
    });
    result.map_err(stopped)
}

/// A guest inside a call of its own, or between calls.
pub(super) struct RunningGuest<'a> {
    pub(super) env: FunctionEnvMut<'a, GuestState>,
}

impl RunningGuest<'_> {
    fn memory(&self) -> Option<&Memory> {
        self.env.data().exports.as_ref()?.memory.as_ref()
    }

    fn function(&self, export: &str) -> Option<Function> {
        let exports = self.env.data().exports.as_ref()?;
        exports.instance.exports.get_function(export).ok().cloned()
    }
}

impl GuestMemory for RunningGuest<'_> {
    fn size(&self) -> u64 {
        self.memory().map_or(0, |memory| memory.view(&self.env).data_size())
    }

    fn read(&self, address: GuestPtr, into: &mut [u8]) -> Result<(), OutOfBounds> {
        let memory = self.memory().ok_or(OutOfBounds)?;
        memory.view(&self.env).read(address.0.into(), into).map_err(|_| OutOfBounds)
    }

    fn write(&mut self, address: GuestPtr, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let memory = self.memory().ok_or(OutOfBounds)?;
        memory.view(&self.env).write(address.0.into(), bytes).map_err(|_| OutOfBounds)
    }
}

/// Its futures never wait: the guest runs on the thread that asks.
impl Guest for RunningGuest<'_> {
    type Error = Stop;

    async fn allocate(&mut self, align: u32, size: GuestLen) -> Result<GuestPtr, Stop> {
        let realloc = self.env.data().exports.as_ref().and_then(|exports| exports.realloc.clone());
        let realloc = realloc.ok_or_else(|| Stop::missing_export("cabi_realloc"))?;
        self.env.data_mut().allocating = true;
        let address = realloc.call(&mut self.env, 0, 0, align, size.0);
        self.env.data_mut().allocating = false;
        address.map(GuestPtr).map_err(stop::from_error)
    }
}

impl GuestExports for RunningGuest<'_> {
    fn has_function(&mut self, export: &str) -> bool {
        self.function(export).is_some()
    }

    async fn call(&mut self, export: &str, params: &[CoreValue]) -> Result<Option<CoreValue>, Stop> {
        let function = self.function(export).ok_or_else(|| Stop::missing_export(export))?;
        let params: Vec<Value> = params.iter().copied().map(value).collect();
        let signature = function.ty(&self.env);
        let fits =
            params.iter().map(Value::ty).eq(signature.params().iter().copied()) && signature.results().len() <= 1;
        if !fits {
            return Err(Stop::missing_export(export));
        }
        let results = function.call(&mut self.env, &params).map_err(stop::from_error)?;
        Ok(results.first().and_then(core_value))
    }
}

fn value_type(core: CoreType) -> Type {
    match core {
        CoreType::I32 => Type::I32,
        CoreType::I64 => Type::I64,
    }
}

fn value(core: CoreValue) -> Value {
    match core {
        CoreValue::I32(value) => Value::I32(value.cast_signed()),
        CoreValue::I64(value) => Value::I64(value.cast_signed()),
    }
}

fn core_value(value: &Value) -> Option<CoreValue> {
    match value {
        Value::I32(value) => Some(CoreValue::I32(value.cast_unsigned())),
        Value::I64(value) => Some(CoreValue::I64(value.cast_unsigned())),
        _ => None,
    }
}
