//! A program as large as one wants.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection,
    ImportSection, MemArg, MemArgTarget, MemorySection, MemoryType, Module, TypeSection, ValType,
};

const GREETING: &[u8] = b"hi\n";
/// What one function takes of the file, about.
const FUNCTION_BYTES: usize = 330;

/// A WASI program of about that many bytes that prints `hi`. What makes it large is code that is not run, as most of an
/// interpreter's is.
pub fn large_module(bytes: usize) -> Vec<u8> {
    let count = u32::try_from(bytes / FUNCTION_BYTES).expect("a size that fits into a module");
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32; 4], [ValType::I32]);
    types.ty().function([], []);
    types.ty().function([ValType::I32; 2], [ValType::I32]);
    let mut imports = ImportSection::new();
    imports.import("wasi_snapshot_preview1", "fd_write", EntityType::Function(0));
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    functions.function(1);
    code.function(&start());
    for index in 0..count {
        functions.function(2);
        code.function(&filler(index));
    }
    let mut memories = MemorySection::new();
    let memory = MemoryType { minimum: 16, maximum: None, memory64: false, shared: false, page_size_log2: None };
    memories.memory(memory);
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0).export("_start", ExportKind::Func, 1);
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(16), GREETING.iter().copied());
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&functions).section(&memories);
    module.section(&exports).section(&code).section(&data);
    module.finish()
}

/// An aligned or unaligned address of the only memory.
fn at(offset: u64) -> MemArg {
    MemArg { offset, align: 0, target: MemArgTarget::Memory(0), ordering: None }
}

/// Prints the greeting.
fn start() -> Function {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.i32_const(0).i32_const(16).i32_store(at(0));
    code.i32_const(4).i32_const(GREETING.len() as i32).i32_store(at(0));
    code.i32_const(1).i32_const(0).i32_const(1).i32_const(8).call(0).drop().end();
    function
}

/// Mixes two numbers with what is in memory, in a way that no other function does.
fn filler(index: u32) -> Function {
    let mut function = Function::new([(2, ValType::I32)]);
    let mut code = function.instructions();
    code.loop_(BlockType::Empty);
    for step in 0..14 {
        let word = at(u64::from(index % 1000 * 16 + step));
        code.local_get(0).i32_const(0xffff).i32_and().i32_load(word);
        code.local_get(1).i32_const(i32::from_ne_bytes((index * 31 + step).to_ne_bytes())).i32_add();
        code.i32_mul().local_tee(2).local_get(1).i32_xor().local_set(1);
    }
    code.local_get(1).i32_const(0xffff).i32_and().local_get(2).i32_store(at(0));
    code.local_get(2).i32_const(1023).i32_and().br_if(0).end();
    if index > 0 {
        // As in a real program, most functions call others.
        code.local_get(0).local_get(1).call(index + 1).drop();
    }
    code.local_get(1).end();
    function
}
