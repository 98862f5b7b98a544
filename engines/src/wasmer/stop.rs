//! wasmer's errors in the words of the contract.

use wasmer::sys::vm::TrapCode;
use wasmer::{InstantiationError, LinkError, RuntimeError};
use wasmer_wasix::WasiError;

use crate::engine::{Stop, Trap, TrapKind};

pub(super) fn from_error(error: RuntimeError) -> Stop {
    let frames = error.trace().iter().map(|frame| (frame.function_name(), frame.func_index()));
    let backtrace = Trap::backtrace(frames);
    let mut trap = if let Some(WasiError::Exit(code)) = error.downcast_ref() {
        // Of a code, wasmer-wasix keeps what a system keeps: eight bits.
        return Stop::Exit(code.raw().cast_unsigned() & 0xff);
    } else if let Some(stop) = error.downcast_ref::<Stop>() {
        match stop {
            Stop::Trap(trap) => trap.clone(),
            Stop::Exit(code) => return Stop::Exit(*code),
            Stop::Cancelled => return Stop::Cancelled,
        }
    } else {
        match error.clone().to_trap() {
            Some(TrapCode::HostInterrupt) => return Stop::Cancelled,
            code => {
                let kind = code.map_or(TrapKind::Other, kind);
                let message = matches!(kind, TrapKind::Other).then(|| error.message());
                Trap { kind, message, backtrace: None }
            }
        }
    };
    trap.backtrace = trap.backtrace.or(backtrace);
    Stop::Trap(trap)
}

pub(super) fn from_instantiation(error: InstantiationError) -> Stop {
    match error {
        InstantiationError::Start(error) | InstantiationError::Link(LinkError::Trap(error)) => from_error(error),
        other => failed(other),
    }
}

/// Something beside the guest's own code went wrong.
pub(super) fn failed(error: impl std::fmt::Display) -> Stop {
    Stop::Trap(Trap { kind: TrapKind::Other, message: Some(error.to_string()), backtrace: None })
}

fn kind(code: TrapCode) -> TrapKind {
    match code {
        TrapCode::UnreachableCodeReached => TrapKind::Unreachable,
        TrapCode::StackOverflow => TrapKind::StackOverflow,
        TrapCode::HeapAccessOutOfBounds => TrapKind::MemoryOutOfBounds,
        TrapCode::TableAccessOutOfBounds => TrapKind::TableOutOfBounds,
        TrapCode::IndirectCallToNull => TrapKind::IndirectCallToNull,
        TrapCode::BadSignature => TrapKind::BadSignature,
        TrapCode::IntegerOverflow => TrapKind::IntegerOverflow,
        TrapCode::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
        TrapCode::BadConversionToInteger => TrapKind::BadConversionToInteger,
        TrapCode::HeapMisaligned | TrapCode::UnalignedAtomic => TrapKind::UnalignedAtomic,
        _ => TrapKind::Other,
    }
}
