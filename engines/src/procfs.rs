//! The files of procfs. One of them is the memory of the process that runs the guest (`/proc/self/mem`): whoever writes to
//! it is in Wasm no longer.

use std::fs::File;
use std::io;

use rustix::fs::{PROC_SUPER_MAGIC, fstatfs};

/// Whether the file is one of procfs, wherever that is mounted. A guest gets none of them.
pub(crate) fn has(file: &File) -> io::Result<bool> {
    Ok(fstatfs(file)?.f_type == PROC_SUPER_MAGIC)
}
