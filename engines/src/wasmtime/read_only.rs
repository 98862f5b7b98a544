//! The error of a read-only file system, for which wasmtime-wasi has no word: it would be an I/O error.
//!
//! wasmtime-wasi forgets what the kernel said. So the file system is looked at after such an error, where the path starts
//! at a directory that the guest was given, as the C library's paths do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatvfs, open, openat2};
use wasmtime::{AsContextMut as _, Caller, Extern, Linker, Memory};
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1 as _};
use wiggle::GuestMemory;

use super::guest::GuestState;
use crate::engine::Preopen;

const ERRNO_IO: i32 = 29;
const ERRNO_ROFS: i32 = 69;
/// The descriptor of the first directory that a guest was given.
const FIRST_PREOPEN: usize = 3;

/// A path in a guest's memory: the directory that it starts at, its address and its length.
type GuestPath = (i32, i32, i32);

/// Puts a function of WASI that changes what is at some paths in the place of wasmtime-wasi's own.
macro_rules! mend {
    ($linker:ident, $function:ident($($parameter:ident: $type:ty),+), $($path:expr),+) => {
        $linker.func_wrap_async(
            "wasi_snapshot_preview1",
            stringify!($function),
            |mut caller: Caller<'_, GuestState>, ($($parameter,)+): ($($type,)+)| {
                Box::new(async move {
                    let memory = memory(&mut caller)?;
                    let fuel = caller.as_context_mut().hostcall_fuel();
                    let (bytes, state) = memory.data_and_store_mut(&mut caller);
                    state.wasi.context().set_hostcall_fuel(fuel);
                    let mut guest = GuestMemory::Unshared(bytes);
                    let errno = wasi::$function(state.wasi.context(), &mut guest, $($parameter),+).await?;
                    let is_read_only = |path: GuestPath| is_read_only(state.wasi.preopens(), bytes, path);
                    Ok(if errno == ERRNO_IO && [$($path),+].into_iter().all(is_read_only) { ERRNO_ROFS } else { errno })
                })
            },
        )?
    };
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    mend!(linker, path_create_directory(fd: i32, path: i32, length: i32), (fd, path, length));
    mend!(
        linker,
        path_open(
            fd: i32, lookup: i32, path: i32, length: i32, how: i32, rights: i64, inherited: i64, flags: i32, opened: i32
        ),
        (fd, path, length)
    );
    mend!(linker, path_remove_directory(fd: i32, path: i32, length: i32), (fd, path, length));
    mend!(
        linker,
        path_rename(from_fd: i32, from: i32, from_length: i32, to_fd: i32, to: i32, to_length: i32),
        (from_fd, from, from_length),
        (to_fd, to, to_length)
    );
    mend!(
        linker,
        path_symlink(target: i32, target_length: i32, fd: i32, path: i32, length: i32),
        (fd, path, length)
    );
    mend!(linker, path_unlink_file(fd: i32, path: i32, length: i32), (fd, path, length));
    Ok(())
}

fn memory(caller: &mut Caller<'_, GuestState>) -> wasmtime::Result<Memory> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    memory.ok_or_else(|| wasmtime::format_err!("missing required memory export"))
}

/// Whether what is at a path, or the folder that it would be in, lies on a file system that takes no changes.
fn is_read_only(preopens: &[Preopen], memory: &[u8], (fd, address, length): GuestPath) -> bool {
    let preopen = usize::try_from(fd).ok().and_then(|fd| preopens.get(fd.checked_sub(FIRST_PREOPEN)?));
    let (address, length) = (address.cast_unsigned() as usize, length.cast_unsigned() as usize);
    let path = memory.get(address..).and_then(|rest| rest.get(..length));
    let (Some(preopen), Some(path)) = (preopen, path) else { return false };
    let path = Path::new(OsStr::from_bytes(path));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(directory) = open(&preopen.host, flags | OFlags::DIRECTORY, Mode::empty()) else { return false };
    let find = |path: &Path| {
        openat2(&directory, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = find(path).or_else(|_| find(folder)).and_then(fstatvfs);
    found.is_ok_and(|file_system| file_system.f_flag.contains(StatVfsMountFlags::RDONLY))
}
