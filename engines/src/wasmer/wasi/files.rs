//! The host's files for wasmer-wasix.
//!
//! Its own file system for hosts follows symbolic links out of the directory it is given. This one cannot: every
//! path is resolved by cap-std, the way wasmtime does it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, FileTypeExt as _, Metadata, MetadataExt as _};
use futures::future::{BoxFuture, ready};
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT, futimens};
use rustix::io::Errno;
use wasmer_wasix::virtual_fs::{
    self, AsyncRead, AsyncSeek, AsyncWrite, DirEntry, FileOpener, FileSystem, FileType, FsError, OpenOptions,
    OpenOptionsConfig, ReadBuf, ReadDir, VirtualFile,
};

use super::refusals;
use crate::procfs;

type Result<T> = virtual_fs::Result<T>;

/// A directory and everything in it. Paths are absolute, with this directory as their root.
#[derive(Debug)]
pub(super) struct HostDirectory {
    root: Arc<Dir>,
}

impl HostDirectory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: Arc::new(Dir::open_ambient_dir(path, ambient_authority())?) })
    }
}

/// The path as cap-std wants it.
fn inside(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

impl FileSystem for HostDirectory {
    fn readlink(&self, path: &Path) -> Result<PathBuf> {
        self.root.read_link_contents(inside(path)).map_err(error)
    }

    fn read_dir(&self, path: &Path) -> Result<ReadDir> {
        let entries = self.root.read_dir(inside(path)).map_err(error)?;
        let entry = |entry: io::Result<cap_std::fs::DirEntry>| {
            let entry = entry.map_err(error)?;
            let metadata = entry.metadata().map(metadata).map_err(error);
            Ok(DirEntry { path: path.join(entry.file_name()), metadata })
        };
        Ok(ReadDir::new(entries.map(entry).collect::<Result<_>>()?))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.root.create_dir(inside(path)).map_err(error)
    }

    fn create_symlink(&self, contents: &Path, link: &Path) -> Result<()> {
        self.root.symlink_contents(contents, inside(link)).map_err(error)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.root.remove_dir(inside(path)).map_err(error)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(self.root.rename(inside(from), &self.root, inside(to)).map_err(error)))
    }

    fn metadata(&self, path: &Path) -> Result<virtual_fs::Metadata> {
        self.root.metadata(inside(path)).map(metadata).map_err(error)
    }

    fn symlink_metadata(&self, path: &Path) -> Result<virtual_fs::Metadata> {
        self.root.symlink_metadata(inside(path)).map(metadata).map_err(error)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.root.remove_file(inside(path)).map_err(error)
    }

    fn new_open_options(&self) -> OpenOptions<'_> {
        OpenOptions::new(self)
    }
}

impl FileOpener for HostDirectory {
    fn open(&self, path: &Path, config: &OpenOptionsConfig) -> Result<Box<dyn VirtualFile + Send + Sync>> {
        // wasmer-wasix shares a file among its descriptors and itself seeks to the end for the ones that append.
        let OpenOptionsConfig { read, write, create_new, create, append: _, truncate } = *config;
        let mut options = cap_std::fs::OpenOptions::new();
        options.read(read || !write).write(write).create_new(create_new).create(create).truncate(truncate);
        let file = self.root.open_with(inside(path), &options).map_err(error)?.into_std();
        if procfs::has(&file).map_err(error)? {
            return Err(error(Errno::ACCESS.into()));
        }
        Ok(Box::new(HostFile {
            file: Arc::new(file),
            position: 0,
            entry: Some((Arc::clone(&self.root), inside(path).to_owned())),
        }))
    }
}

fn metadata(metadata: Metadata) -> virtual_fs::Metadata {
    let kind = metadata.file_type();
    virtual_fs::Metadata {
        ft: FileType {
            dir: kind.is_dir(),
            file: kind.is_file(),
            symlink: kind.is_symlink(),
            char_device: kind.is_char_device(),
            block_device: kind.is_block_device(),
            socket: kind.is_socket(),
            fifo: kind.is_fifo(),
        },
        accessed: nanoseconds(metadata.atime(), metadata.atime_nsec()),
        // wasmer-wasix hands this to guests as the time of the last change.
        created: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        len: metadata.len(),
    }
}

/// Since 1970; WASI knows no time before.
fn nanoseconds(seconds: i64, nanoseconds: i64) -> u64 {
    let seconds = u64::try_from(seconds).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(nanoseconds).unwrap_or_default())
}

fn error(error: io::Error) -> FsError {
    refusals::note(&error);
    match error.kind() {
        io::ErrorKind::DirectoryNotEmpty => FsError::DirectoryNotEmpty,
        io::ErrorKind::NotADirectory => FsError::BaseNotDirectory,
        io::ErrorKind::IsADirectory => FsError::NotAFile,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FsError::IOError,
        // wasmer-wasix opens every file for writing first, and for reading alone when that is not permitted.
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::ExecutableFileBusy => FsError::PermissionDenied,
        _ => error.into(),
    }
}

/// An open file or stream. All calls go straight through and may block: a guest has its thread for itself. What
/// interrupts the guest interrupts them, too.
#[derive(Debug)]
pub(super) struct HostFile {
    file: Arc<File>,
    /// Where the last seek ended.
    position: u64,
    /// Its directory entry. A stream has none.
    entry: Option<(Arc<Dir>, PathBuf)>,
}

impl HostFile {
    pub(super) fn stream(file: Arc<File>) -> Self {
        Self { file, position: 0, entry: None }
    }

    fn metadata(&self) -> virtual_fs::Metadata {
        self.file.metadata().map(Metadata::from_just_metadata).map(metadata).unwrap_or_default()
    }
}

impl AsyncRead for HostFile {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = (&*self.file).read(buffer.initialize_unfilled())?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostFile {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready((&*self.file).write(bytes).inspect_err(refusals::note))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for HostFile {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        self.position = (&*self.file).seek(position)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl VirtualFile for HostFile {
    fn last_accessed(&self) -> u64 {
        self.metadata().accessed
    }

    fn last_modified(&self) -> u64 {
        self.metadata().modified
    }

    fn created_time(&self) -> u64 {
        self.metadata().created
    }

    fn set_times(&mut self, accessed: Option<u64>, modified: Option<u64>) -> Result<()> {
        let time = |time: Option<u64>| match time.map(Duration::from_nanos) {
            Some(time) => Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() },
            None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
        futimens(&*self.file, &times).map_err(|errno| error(errno.into()))
    }

    fn size(&self) -> u64 {
        self.metadata().len
    }

    fn set_len(&mut self, length: u64) -> Result<()> {
        self.file.set_len(length).map_err(error)
    }

    fn unlink(&mut self) -> Result<()> {
        match &self.entry {
            Some((root, path)) => root.remove_file(path).map_err(error),
            None => Err(FsError::PermissionDenied),
        }
    }

    /// Always: reading shows what there is, as with wasmtime's streams.
    fn poll_read_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(1))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(1))
    }
}
