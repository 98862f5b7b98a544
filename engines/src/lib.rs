//! WebAssembly engines behind one contract, and the cache of what they compiled.
//!
//! [`engine`] is the contract; `wasmtime` and `wasmer` implement it, file by file alike. A module comes from
//! an image and is never trusted; an artifact comes from an engine, through [`artifact_cache`], and from
//! nowhere else.

pub mod artifact_cache;
pub mod engine;
mod guest_memory;
mod module_data;
pub mod module_info;
mod names;
mod procfs;
mod wasi_preview1;
#[cfg(feature = "wasmer")]
pub mod wasmer;
#[cfg(feature = "wasmtime")]
pub mod wasmtime;

use std::sync::Arc;

use engine::Engine;

/// The engines compiled in, the default one first.
pub fn built_in() -> Vec<Arc<dyn Engine>> {
    vec![
        #[cfg(feature = "wasmtime")]
        Arc::new(wasmtime::Wasmtime::new()),
        #[cfg(feature = "wasmer")]
        Arc::new(wasmer::Wasmer::new()),
    ]
}
