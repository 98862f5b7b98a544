//! What can be said of a module before an engine sees it.

use std::collections::BTreeMap;

use host_abi::canonical::CoreType;
use host_abi::host_functions::host_functions;
use serde::{Deserialize, Serialize};
use wasmparser::{CompositeInnerType, Encoding, ExternalKind, FuncType, Import, Parser, Payload, TypeRef, ValType};

use crate::{names, wasi_preview1};

/// Types, imports and exports that a module may have of each: as many as the engines take.
const MOST_ENTRIES: usize = 1_000_000;
/// Bytes that the names of a module's exported functions may have together, in JSON: they are kept with its artifact.
const MOST_NAME_BYTES: usize = 16 << 20;
/// Parameters and results of the types that are looked at. The canonical ABI has no more: 16 parameters, and an address for
/// the result.
const MOST_VALUES: usize = 17;
/// Names in an error message.
const MOST_NAMED: usize = 20;

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
    #[error("has {what} beyond the {most} that are allowed")]
    TooMany { what: &'static str, most: usize },
    #[error("imports what nobody provides: {missing}; known are {}", known_imports())]
    UnknownImports { missing: String },
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
        let mut outline = Outline::new();
        for payload in Parser::new(0).parse_all(module) {
            outline.read(payload.map_err(damaged)?)?;
        }
        if !outline.missing.is_empty() {
            return Err(ModuleError::UnknownImports { missing: first_of(outline.missing.into_iter()) });
        }
        Ok(Self { functions: outline.exported_functions })
    }

    pub fn exports_function(&self, name: &str) -> bool {
        self.functions.iter().any(|function| function == name)
    }

    /// The first of the exported functions, for a message.
    pub fn exported_functions(&self) -> String {
        first_of(self.functions.iter().map(|name| names::shown(name)))
    }
}

/// Of many names in a message, the first.
fn first_of(mut names: impl Iterator<Item = String>) -> String {
    let first = names.by_ref().take(MOST_NAMED).collect::<Vec<_>>().join(", ");
    if names.next().is_some() { first + ", and more" } else { first }
}

fn damaged(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Damaged(error.to_string())
}

/// The parts of a module that matter here, as far as they were read. What a module repeats is not copied: a few bytes can
/// name a million imports.
struct Outline {
    known: BTreeMap<(&'static str, &'static str), Option<String>>,
    /// `None` for a type that no known function has.
    types: Vec<Option<FuncType>>,
    imports: usize,
    /// The first imports that nobody provides, one more than are going to be named.
    missing: Vec<String>,
    exports: usize,
    exported_functions: Vec<String>,
    name_bytes: usize,
}

impl Outline {
    fn new() -> Self {
        Self {
            known: known_functions(),
            types: Vec::new(),
            imports: 0,
            missing: Vec::new(),
            exports: 0,
            exported_functions: Vec::new(),
            name_bytes: 0,
        }
    }

    fn read(&mut self, payload: Payload<'_>) -> Result<(), ModuleError> {
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(ModuleError::WasmComponent),
            Payload::TypeSection(section) => {
                for group in section {
                    let types = group.map_err(damaged)?.into_types();
                    self.types.extend(types.map(|ty| match ty.composite_type.inner {
                        CompositeInnerType::Func(ty) if ty.params().len() + ty.results().len() <= MOST_VALUES => {
                            Some(ty)
                        }
                        _ => None,
                    }));
                    at_most(MOST_ENTRIES, self.types.len(), "types")?;
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.imports += 1;
                    at_most(MOST_ENTRIES, self.imports, "imports")?;
                    self.check(import.map_err(damaged)?)?;
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(damaged)?;
                    self.exports += 1;
                    at_most(MOST_ENTRIES, self.exports, "exports")?;
                    if export.kind == ExternalKind::Func {
                        self.name_bytes += bytes_in_json(export.name);
                        at_most(MOST_NAME_BYTES, self.name_bytes, "bytes of exported functions' names")?;
                        self.exported_functions.push(export.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&mut self, Import { module, name, ty }: Import<'_>) -> Result<(), ModuleError> {
        let what = match (ty, self.known.get(&(module, name))) {
            (TypeRef::Func(_), Some(None)) => return Ok(()),
            (TypeRef::Func(ty), Some(Some(known))) => {
                let found = self.types.get(ty as usize).and_then(Option::as_ref).map(describe);
                let found = found.unwrap_or_else(|| "something else".to_owned());
                if found == *known {
                    return Ok(());
                }
                return Err(ModuleError::ImportType {
                    import: format!("{module}.{name}"),
                    found,
                    known: known.clone(),
                });
            }
            (TypeRef::Func(_), None) => "",
            _ => " (not a function)",
        };
        if self.missing.len() <= MOST_NAMED {
            self.missing.push(format!("{}.{}{what}", names::shown(module), names::shown(name)));
        }
        Ok(())
    }
}

fn bytes_in_json(name: &str) -> usize {
    name.bytes().map(|byte| if byte.is_ascii_control() { r"\u0000".len() } else { 1 }).sum()
}

fn at_most(most: usize, count: usize, what: &'static str) -> Result<(), ModuleError> {
    if count > most { Err(ModuleError::TooMany { what, most }) } else { Ok(()) }
}

/// Everything a guest can import, with the type as text where it is this project's own; WASI's types are checked
/// by the engine that links them.
fn known_functions() -> BTreeMap<(&'static str, &'static str), Option<String>> {
    let wasi = wasi_preview1::FUNCTIONS.iter().map(|name| ((wasi_preview1::MODULE, *name), None));
    let dapr = host_functions().iter().map(|function| {
        let signature = &function.signature;
        let text = signature_text(signature.params.iter().map(core_name), signature.results.iter().map(core_name));
        ((function.interface, function.name), Some(text))
    });
    wasi.chain(dapr).collect()
}

fn known_imports() -> String {
    let dapr = host_functions().iter().map(|function| format!("{}.{}", function.interface, function.name));
    std::iter::once(format!("{}.* (WASI's own functions)", wasi_preview1::MODULE))
        .chain(dapr)
        .collect::<Vec<_>>()
        .join(", ")
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
