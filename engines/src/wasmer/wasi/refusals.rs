//! Errors of file systems for which wasmer-wasix has no word. Without this, guests get 'not permitted' or an I/O error.

use std::cell::Cell;
use std::io;

use rustix::io::Errno;
use wasmer::{AsStoreMut, Extern, Function, FunctionEnvMut, Imports, TypedFunction, Value};
use wasmer_wasix::{WasiEnv, WasiFunctionEnv};

use super::mended::original;
use crate::wasi_preview1::{MODULE, errno};

/// What changes a file system, but for writing to a file.
const FUNCTIONS: [&str; 6] =
    ["path_create_directory", "path_open", "path_remove_directory", "path_rename", "path_symlink", "path_unlink_file"];

thread_local! {
    /// The last refusal. A guest has its thread for itself.
    static REFUSAL: Cell<Option<i32>> = const { Cell::new(None) };
}

/// To be called where the kernel's word is exchanged for one of wasmer-wasix.
pub(super) fn note(error: &io::Error) {
    REFUSAL.set(match error.kind() {
        _ if error.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => Some(errno::ACCES),
        io::ErrorKind::ReadOnlyFilesystem => Some(errno::ROFS),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(errno::NOSPC),
        _ => None,
    });
}

/// wasmer-wasix's word, or the refusal's that it stands for.
fn mended(errno: i32) -> i32 {
    let stands_for_another = [errno::IO, errno::PERM].contains(&errno);
    REFUSAL.take().filter(|_| stands_for_another).unwrap_or(errno)
}

pub(super) fn link(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    for name in FUNCTIONS {
        let Some(Extern::Function(original)) = imports.get_export(MODULE, name) else {
            unreachable!("wasmer-wasix has all of WASI preview 1")
        };
        let signature = original.ty(store);
        let function = move |mut guest: FunctionEnvMut<'_, WasiEnv>, arguments: &[Value]| {
            REFUSAL.set(None);
            let results = original.call(&mut guest, arguments)?;
            Ok(match results[..] {
                [Value::I32(errno)] => vec![Value::I32(mended(errno))],
                _ => results.into_vec(),
            })
        };
        imports.define(MODULE, name, Function::new_with_env(store, &wasi.env, signature, function));
    }
    fd_write(store, imports, wasi);
}

/// Apart from the others: a guest may write often, and a function whose types are known is called faster.
fn fd_write(store: &mut impl AsStoreMut, imports: &mut Imports, wasi: &WasiFunctionEnv) {
    let name = "fd_write";
    let write: TypedFunction<(u32, u32, u32, u32), i32> = original(store, imports, name);
    let function = move |mut guest: FunctionEnvMut<'_, WasiEnv>, fd: u32, vectors: u32, count: u32, written: u32| {
        REFUSAL.set(None);
        write.call(&mut guest, fd, vectors, count, written).map(mended)
    };
    imports.define(MODULE, name, Function::new_typed_with_env(store, &wasi.env, function));
}
