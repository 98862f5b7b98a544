//! The one configuration, for compiling and for running.

use wasmer::Engine;
use wasmer::sys::{Cranelift, CraneliftOptLevel, EngineBuilder, Features, NativeEngineExt as _, vm};

use super::image::LAYOUT;
use super::memory::Memories;
use crate::guest_memory::MemoryImage;

/// What wasmtime takes as well, so that a module runs on both or on neither; but for `externref`, which is a part of
/// `reference_types` here, and of garbage collection there.
const FEATURES: Features = Features {
    bulk_memory: true,
    extended_const: true,
    multi_memory: true,
    multi_value: true,
    reference_types: true,
    relaxed_simd: true,
    simd: true,
    exceptions: false,
    memory64: false,
    module_linking: false,
    tail_call: false,
    threads: false,
    wide_arithmetic: false,
};

/// A new engine. One keeps all the code that it ever compiled or loaded, so each compilation and each loaded module
/// has its own. The module's memory begins with the image, if there is one.
pub(super) fn engine(image: Option<MemoryImage>) -> Engine {
    let mut compiler = Cranelift::new();
    compiler.opt_level(CraneliftOptLevel::Speed);
    let mut engine: Engine = EngineBuilder::new(compiler).set_features(Some(FEATURES)).into();
    engine.set_tunables(Memories::new(engine.target(), image));
    engine
}

/// Everything that the code of an engine depends on.
pub(super) fn fingerprint(engine: &Engine) -> String {
    let target = engine.target();
    let (version, compiler) = (vm::VERSION, engine.deterministic_id());
    let (triple, processor) = (target.triple(), target.cpu_features());
    format!("{version} {compiler} {triple} {processor:?} {FEATURES:?} {LAYOUT}")
}
