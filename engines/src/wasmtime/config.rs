//! The one configuration, for compiling and for running.

use wasmtime::{Config, Engine, OptLevel, PoolingAllocationConfig, WasmFeatures};

/// What wasmer has not: a module runs on both or on neither.
const NOT_EVERYWHERE: WasmFeatures =
    WasmFeatures::FUNCTION_REFERENCES.union(WasmFeatures::MEMORY64).union(WasmFeatures::TAIL_CALL);

/// The stack of a guest's own calls, in bytes. Deeper recursion is a trap.
const MAX_WASM_STACK: usize = 1 << 20;
/// The whole fiber: what a host function called from the deepest guest frame needs comes on top.
const FIBER_STACK: usize = MAX_WASM_STACK + (1 << 20);

/// As many elements as a table can have. Only address space is set aside.
const TABLE_ELEMENTS: usize = 10_000_000;
/// A table is zeroed in place up to here; more than that is given back to the system.
const TABLE_KEPT: usize = 64 << 10;

pub(super) fn engine() -> Engine {
    match Engine::new(&config()) {
        Ok(engine) => engine,
        Err(error) => unreachable!("a fixed configuration is valid or it is not: {error:#}"),
    }
}

/// An engine with places for `instances` of one memory and one table each, made once and used again and again. What
/// it compiles and what it takes is the same as for [`engine`]: how instances are allocated is no part of an artifact.
///
/// # Errors
/// The address space is not to be had: 4 GiB for each place.
pub(super) fn pooling_engine(instances: u32) -> wasmtime::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances)
        .total_memories(instances)
        .total_tables(instances)
        // A guest whose host function allocates in it has two.
        .total_stacks(2 * instances)
        .table_elements(TABLE_ELEMENTS)
        .table_keep_resident(TABLE_KEPT);
    // `pagemap_scan` would be quicker. But a page that was written and is swapped out or on its way elsewhere it takes for
    // clean, and the next guest would read it (bytecodealliance/wasmtime#14357).
    Engine::new(config().allocation_strategy(pool))
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

#[cfg(test)]
mod tests {
    use wasmtime::Module;

    use super::*;

    #[test]
    fn an_artifact_fits_the_engine_with_a_pool_and_the_one_without() {
        let artifact = engine().precompile_module(b"\0asm\x01\0\0\0").unwrap();
        for engine in [engine(), pooling_engine(8).unwrap()] {
            // SAFETY: the artifact was made above.
            #[expect(unsafe_code, reason = "see above")]
            let module = unsafe { Module::deserialize(&engine, &artifact) };
            assert!(module.is_ok(), "{:?}", module.err());
        }
    }
}
