//! What can be said of a module before an engine sees it.

use std::collections::BTreeMap;

use host_abi::canonical::CoreType;
use host_abi::host_functions::host_functions;
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, ExternalKind, FuncType, Parser, Payload, TypeRef, ValType};

/// The module name of WASI preview 1.
const WASI: &str = "wasi_snapshot_preview1";

/// Its functions. Source: `phases/snapshot/witx/wasi_snapshot_preview1.witx` of the WASI repository.
const WASI_FUNCTIONS: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

/// Why bytes are no module that can run here.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    #[error("is empty")]
    Empty,
    #[error("is not WebAssembly: it does not begin with \\0asm")]
    NotWasm,
    #[error("is a Wasm component, which is not supported yet: build a core module (such as wasm32-wasip1)")]
    WasmComponent,
    #[error("is damaged: {0}")]
    Damaged(String),
    #[error("imports what nobody provides: {}; known are {}", .missing.join(", "), known_imports())]
    UnknownImports { missing: Vec<String> },
    #[error("imports {import} as {found}, but it is {known}")]
    ImportType { import: String, found: String, known: String },
}

/// The names a module exports as functions, once its imports are known to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInfo {
    functions: Vec<String>,
}

impl ModuleInfo {
    /// Reads the outline of a module: what it is, its imports and its exports. Function bodies are not looked at.
    ///
    /// # Errors
    /// It cannot run here, whatever the engine.
    pub fn read(module: &[u8]) -> Result<Self, ModuleError> {
        if module.is_empty() {
            return Err(ModuleError::Empty);
        }
        if !module.starts_with(b"\0asm") {
            return Err(ModuleError::NotWasm);
        }
        let mut outline = Outline::default();
        for payload in Parser::new(0).parse_all(module) {
            outline.read(payload.map_err(damaged)?)?;
        }
        outline.check_imports()?;
        Ok(Self { functions: outline.exported_functions })
    }

    pub fn exports_function(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function == name)
    }

    /// The exported functions, in the module's order.
    pub fn exported_functions(&self) -> &[String] {
        &self.functions
    }
}

fn damaged(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Damaged(error.to_string())
}

/// The parts of a module that matter here, as far as they were read.
#[derive(Default)]
struct Outline {
    /// `None` for a type that is no function's.
    types: Vec<Option<FuncType>>,
    imports: Vec<(String, String, TypeRef)>,
    exported_functions: Vec<String>,
}

impl Outline {
    fn read(&mut self, payload: Payload<'_>) -> Result<(), ModuleError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(ModuleError::WasmComponent),
            Payload::TypeSection(section) => {
                for group in section {
                    for ty in group.map_err(damaged)?.into_types() {
                        let function = match ty.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(function) => Some(function),
                            _ => None,
                        };
                        self.types.push(function);
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(damaged)?;
                    self.imports.push((import.module.to_owned(), import.name.to_owned(), import.ty));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    if export.kind == ExternalKind::Func {
                        self.exported_functions.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check_imports(&self) -> Result<(), ModuleError> {
        let known = known_functions();
        let mut missing = Vec::new();
        for (module, name, ty) in &self.imports {
            let TypeRef::Func(ty) = ty else {
                missing.push(format!("{module}.{name} (not a function)"));
                continue;
            };
            match known.get(&(module.as_str(), name.as_str())) {
                None => missing.push(format!("{module}.{name}")),
                Some(None) => {}
                Some(Some(known)) => {
                    let found = self.types.get(*ty as usize).and_then(Option::as_ref).map(describe);
                    let found = found.unwrap_or_else(|| "no function".to_owned());
                    if found != *known {
                        let import = format!("{module}.{name}");
                        return Err(ModuleError::ImportType { import, found, known: known.clone() });
                    }
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(ModuleError::UnknownImports { missing }) }
    }
}

/// Everything a guest can import, with the type as text where it is this project's own; WASI's types are checked
/// by the engine that links them.
fn known_functions() -> BTreeMap<(&'static str, &'static str), Option<String>> {
    let wasi = WASI_FUNCTIONS.iter().map(|name| ((WASI, *name), None));
    let dapr = host_functions().iter().map(|function| {
        let signature = &function.signature;
        let text = signature_text(signature.params.iter().map(core_name), signature.results.iter().map(core_name));
        ((function.interface, function.name), Some(text))
    });
    wasi.chain(dapr).collect()
}

fn known_imports() -> String {
    let dapr = host_functions().iter().map(|function| format!("{}.{}", function.interface, function.name));
    std::iter::once(format!("{WASI}.*")).chain(dapr).collect::<Vec<_>>().join(", ")
}

fn core_name(core: &CoreType) -> String {
    match core {
        CoreType::I32 => ValType::I32,
        CoreType::I64 => ValType::I64,
    }
    .to_string()
}

fn describe(function: &FuncType) -> String {
    let names = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().into_iter();
    signature_text(names(function.params()), names(function.results()))
}

fn signature_text(params: impl Iterator<Item = String>, results: impl Iterator<Item = String>) -> String {
    let join = |types: Vec<String>| types.join(" ");
    format!("({}) -> ({})", join(params.collect()), join(results.collect()))
}
