//! The configurations, for compiling and for running.

use std::sync::Arc;

use wasmtime::{Config, Engine, OptLevel, WasmFeatures};

use super::memory::{KeptMemories, KeptStacks};

/// What wasmer has not: a module runs on both or on neither.
const NOT_EVERYWHERE: WasmFeatures =
    WasmFeatures::FUNCTION_REFERENCES.union(WasmFeatures::MEMORY64).union(WasmFeatures::TAIL_CALL);

/// The stack of a guest's own calls, in bytes. Deeper recursion is a trap.
const MAX_WASM_STACK: usize = 1 << 20;
/// The whole fiber: what a host function called from the deepest guest frame needs comes on top.
const FIBER_STACK: usize = MAX_WASM_STACK + (1 << 20);

/// An engine whose guests have their memories and stacks one after the other. A new memory gets what the module has for it
/// as a copy.
pub(super) fn copying_engine() -> Engine {
    let mut config = config();
    config
        .memory_init_cow(false)
        .with_host_memory(Arc::new(KeptMemories::default()))
        .with_host_stack(Arc::new(KeptStacks::default()));
    new(&config)
}

/// An engine whose guests have new memories, into which the artifact is mapped: nothing is copied before it is written to.
pub(super) fn mapping_engine() -> Engine {
    new(&config())
}

fn new(config: &Config) -> Engine {
    match Engine::new(config) {
        Ok(engine) => engine,
        Err(error) => unreachable!("a fixed configuration is valid or it is not: {error:#}"),
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .async_stack_size(FIBER_STACK)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .max_wasm_stack(MAX_WASM_STACK)
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .wasm_features(NOT_EVERYWHERE, false);
    config
}
