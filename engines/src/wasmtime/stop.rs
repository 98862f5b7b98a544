//! wasmtime's errors in the words of the contract.

use host_abi::canonical::AbiError;
use wasmtime::WasmBacktrace;
use wasmtime_wasi::I32Exit;

use crate::engine::{Stop, Trap, TrapKind};

pub(super) fn from_error(error: wasmtime::Error) -> Stop {
    let backtrace = error.downcast_ref::<WasmBacktrace>().and_then(backtrace);
    let mut trap = if let Some(I32Exit(code)) = error.downcast_ref() {
        return Stop::Exit(code.cast_unsigned());
    } else if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        let kind = kind(*trap);
        let message = matches!(kind, TrapKind::Other).then(|| trap.to_string());
        Trap { kind, message, backtrace: None }
    } else if error.is::<Stop>() {
        match error.downcast() {
            Ok(Stop::Trap(trap)) => trap,
            Ok(stop) => return stop,
            Err(error) => return from_error(error),
        }
    } else if let Some(error) = error.downcast_ref::<AbiError>() {
        Trap::host_abi(error)
    } else {
        Trap { kind: TrapKind::Other, message: Some(error.root_cause().to_string()), backtrace: None }
    };
    trap.backtrace = backtrace;
    Stop::Trap(trap)
}

/// The host could not do its part.
pub(super) fn failed(error: wasmtime::Error) -> Stop {
    Stop::Trap(Trap { kind: TrapKind::Other, message: Some(format!("{error:#}")), backtrace: None })
}

fn kind(trap: wasmtime::Trap) -> TrapKind {
    use wasmtime::Trap as T;
    match trap {
        T::UnreachableCodeReached => TrapKind::Unreachable,
        T::StackOverflow => TrapKind::StackOverflow,
        T::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
        T::TableOutOfBounds => TrapKind::TableOutOfBounds,
        T::IndirectCallToNull => TrapKind::IndirectCallToNull,
        T::BadSignature => TrapKind::BadSignature,
        T::IntegerOverflow => TrapKind::IntegerOverflow,
        T::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
        T::BadConversionToInteger => TrapKind::BadConversionToInteger,
        T::HeapMisaligned => TrapKind::UnalignedAtomic,
        _ => TrapKind::Other,
    }
}

fn backtrace(backtrace: &WasmBacktrace) -> Option<String> {
    Trap::backtrace(backtrace.frames().iter().map(|frame| (frame.func_name(), frame.func_index())))
}
