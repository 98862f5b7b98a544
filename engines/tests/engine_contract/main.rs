//! What every engine must do: one body for all of them, run as `….wasmtime` and `….wasmer`.

#[macro_use]
mod support;

mod at_once;
mod calls;
mod cancellation;
mod data;
mod files;
mod isolation;
mod traps;
mod wasi;
