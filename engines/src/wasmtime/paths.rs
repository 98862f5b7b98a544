//! What guests see of paths, where wasmtime-wasi alone would not do.
//!
//! - Files of procfs cannot be opened: see [`procfs`].
//! - The error of a read-only file system, for which wasmtime-wasi has no word, would be an I/O error. It forgets what
//!   the kernel said. So the file system is looked at after such an error, where the path starts at a directory that
//!   the guest was given, as the C library's paths do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstatvfs, open, openat2};
use tokio::task::spawn_blocking;
use wasmtime::component::Resource;
use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as wasi, WasiSnapshotPreview1 as _};
use wiggle::{GuestMemory, GuestPtr};

use super::guest::GuestState;
use super::wasi::Wasi;
use crate::engine::Preopen;
use crate::procfs;
use crate::wasi_preview1::{MODULE, errno};

/// The descriptor of the first directory that a guest was given.
const FIRST_PREOPEN: usize = 3;
/// What no descriptor's number is.
const NO_DESCRIPTOR: i32 = -1;

/// A path in a guest's memory: the directory that it starts at, its address and its length.
type GuestPath = (i32, i32, i32);

/// Parameters of `path_open`.
type OpenParameters = (i32, i32, i32, i32, i32, i64, i64, i32, i32);

/// Puts a function of WASI that changes what is at some paths in the place of wasmtime-wasi's own.
macro_rules! mend {
    ($linker:ident, $function:ident($($parameter:ident: $type:ty),+), $($path:expr),+) => {
        $linker.func_wrap_async(
            MODULE,
            stringify!($function),
            |mut caller: Caller<'_, GuestState>, ($($parameter,)+): ($($type,)+)| {
                Box::new(async move {
                    let (bytes, wasi) = parts(&mut caller)?;
                    let mut guest = GuestMemory::Unshared(bytes);
                    let errno = wasi::$function(wasi.context(), &mut guest, $($parameter),+).await?;
                    Ok(in_full(errno, &[$($path),+], wasi, bytes))
                })
            },
        )?
    };
}

pub(super) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    mend!(linker, path_create_directory(fd: i32, path: i32, length: i32), (fd, path, length));
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
    linker.func_wrap_async(
        MODULE,
        "path_open",
        |mut caller: Caller<'_, GuestState>,
         (fd, lookup, path, length, how, rights, inherited, flags, opened): OpenParameters| {
            Box::new(async move {
                let (bytes, wasi) = parts(&mut caller)?;
                let mut guest = GuestMemory::Unshared(bytes);
                let context = wasi.context();
                let place = next_place(context, &mut guest).await?;
                let open = wasi::path_open(
                    context, &mut guest, fd, lookup, path, length, how, rights, inherited, flags, opened,
                );
                let errno = open.await?;
                if errno == errno::SUCCESS && !is_for_guests(context, place).await {
                    let descriptor = guest.read(GuestPtr::<i32>::new(opened.cast_unsigned()))?;
                    wasi::fd_close(context, &mut guest, descriptor).await?;
                    return Ok(errno::ACCES);
                }
                Ok(in_full(errno, &[(fd, path, length)], wasi, bytes))
            })
        },
    )?;
    Ok(())
}

/// What wasmtime-wasi's functions work on: the guest's memory, and what it has of WASI.
fn parts<'a>(caller: &'a mut Caller<'_, GuestState>) -> wasmtime::Result<(&'a mut [u8], &'a mut Wasi)> {
    let memory = caller.get_export("memory").and_then(Extern::into_memory);
    let memory = memory.ok_or_else(|| wasmtime::format_err!("missing required memory export"))?;
    let fuel = caller.as_context_mut().hostcall_fuel();
    let (bytes, state) = memory.data_and_store_mut(caller);
    state.wasi.context().set_hostcall_fuel(fuel);
    Ok((bytes, &mut state.wasi))
}

/// The place in wasmtime-wasi's table that the next file gets: what became free last is given out first. The number
/// that the guest is told stands for that file to wasmtime-wasi alone.
async fn next_place(context: &mut WasiP1Ctx, guest: &mut GuestMemory<'_>) -> wasmtime::Result<u32> {
    // The directories that the guest was given get theirs with the first use of any descriptor.
    wasi::fd_close(context, guest, NO_DESCRIPTOR).await?;
    let table = context.ctx().table;
    let probe = table.push(())?;
    let place = probe.rep();
    table.delete(probe)?;
    Ok(place)
}

/// Whether a guest may have what is at a place in wasmtime-wasi's table.
async fn is_for_guests(context: &mut WasiP1Ctx, place: u32) -> bool {
    match context.ctx().table.get(&Resource::new_borrow(place)) {
        Ok(Descriptor::File(opened)) => {
            // A file system on the network is asked over the network.
            let file = Arc::clone(&opened.file);
            let is_of_procfs = spawn_blocking(move || procfs::has(&file)).await;
            matches!(is_of_procfs, Ok(Ok(false)))
        }
        // Whatever is opened from there comes here, too.
        Ok(Descriptor::Dir(_)) => true,
        Err(_) => false,
    }
}

/// An error number as the guest gets it.
fn in_full(errno: i32, paths: &[GuestPath], wasi: &Wasi, memory: &[u8]) -> i32 {
    let is_read_only = |path: &GuestPath| is_read_only(wasi.preopens(), memory, *path);
    if errno == errno::IO && paths.iter().all(is_read_only) { errno::ROFS } else { errno }
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
