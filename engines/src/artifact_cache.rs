//! Artifacts on the node: compiled once, loaded by every container that runs the same module.
//!
//! A file holds the artifact from its first byte on, so that an engine can map it, and ends in a trailer:
//! magic, length of the artifact (8 bytes, little-endian) and its XXH3-128. The checksum finds damage. Forgery is
//! kept out by the folder: root's alone, and never part of an image.
//!
//! Trouble with the cache costs time, never the guest: what cannot be read is compiled again, what cannot be
//! written is used from memory.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::engine::Engine;

const MAGIC: &[u8; 8] = b"daprwasm";
const TRAILER: u64 = 8 + 8 + 16;
const EXTENSION: &str = "artifact";

/// An artifact in an open file: what is read through it stays the same when the cache drops the file.
pub struct Artifact {
    file: File,
    length: u64,
}

impl Artifact {
    /// An artifact that is in no cache.
    pub fn in_memory(artifact: &Bytes) -> io::Result<Self> {
        let mut file = File::from(memfd_create("artifact", MemfdFlags::CLOEXEC)?);
        file.write_all(artifact)?;
        Ok(Self { file, length: artifact.len() as u64 })
    }

    /// The file; the artifact starts at its first byte, and other bytes may follow it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the artifact.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Opens a file of the cache and checks all of it. `None`: there is none, or it is damaged.
    fn open(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len().checked_sub(TRAILER)?;
        let mut trailer = [0; TRAILER as usize];
        file.seek(SeekFrom::Start(length)).ok()?;
        file.read_exact(&mut trailer).ok()?;
        let artifact = Self { file, length };
        let content = artifact.map().ok()?;
        (trailer == artifact_trailer(&content)).then_some(artifact)
    }

    /// The artifact's bytes, mapped.
    pub fn map(&self) -> io::Result<Bytes> {
        // SAFETY: the file is in a folder that only root can write, and files in it are replaced, never
        // changed; or it is a memory file that nobody else has.
        #[expect(unsafe_code, reason = "see above")]
        let map = unsafe { memmap2::MmapOptions::new().len(self.length as usize).map(&self.file) }?;
        Ok(Bytes::from_owner(map))
    }
}

fn artifact_trailer(artifact: &[u8]) -> [u8; TRAILER as usize] {
    let mut trailer = [0; TRAILER as usize];
    trailer[..8].copy_from_slice(MAGIC);
    trailer[8..16].copy_from_slice(&(artifact.len() as u64).to_le_bytes());
    trailer[16..].copy_from_slice(&xxh3_128(artifact).to_le_bytes());
    trailer
}

/// Which artifact: everything that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactKey(String);

impl ArtifactKey {
    pub fn new(engine: &dyn Engine, module: &[u8]) -> Self {
        let module = hex(&Sha256::digest(module));
        let build = hex(&Sha256::digest(engine.fingerprint()));
        Self(format!("{}-{}-{module}", engine.name(), &build[..16]))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of artifacts.
pub struct ArtifactCache {
    folder: PathBuf,
    max_bytes: u64,
}

impl ArtifactCache {
    /// Uses `folder`, made where it does not exist. Its artifacts may take up `max_bytes`; beyond that the ones used
    /// longest ago are removed.
    ///
    /// # Errors
    /// The folder cannot be made, or someone but this process's user may write to it.
    pub fn open(folder: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let folder = folder.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let metadata = fs::metadata(&folder)?;
        if metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
            let message = format!("artifact cache {} is not private to its owner", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        Ok(Self { folder, max_bytes })
    }

    /// The artifact for `key`, compiled by `compile` unless it is there. Whoever asks for the same key meanwhile, in
    /// any process, waits for that one compilation.
    ///
    /// # Errors
    /// Those of `compile`, and lack of memory for an artifact that could not be written to the folder.
    pub fn get_or_compile<E>(
        &self,
        key: &ArtifactKey,
        compile: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Artifact, E>
    where
        E: From<io::Error>,
    {
        let path = self.folder.join(&key.0).with_extension(EXTENSION);
        if let Some(artifact) = self.open_used(&path) {
            return Ok(artifact);
        }
        let lock = Lock::acquire(&path.with_extension("lock"));
        if let Err(error) = &lock {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot lock the artifact cache");
        }
        if let Some(artifact) = self.open_used(&path) {
            return Ok(artifact);
        }
        let artifact = compile()?;
        match self.insert(&path, &artifact) {
            Ok(artifact) => Ok(artifact),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot keep the compiled module in the artifact cache");
                Ok(Artifact::in_memory(&Bytes::from(artifact))?)
            }
        }
    }

    /// Opens an artifact and notes that it was used.
    fn open_used(&self, path: &Path) -> Option<Artifact> {
        let artifact = Artifact::open(path)?;
        // A time that cannot be set makes the artifact look older, no more.
        let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(artifact)
    }

    fn insert(&self, path: &Path, artifact: &[u8]) -> io::Result<Artifact> {
        let temporary = path.with_extension(format!("{}.partial", std::process::id()));
        let written = write_artifact(&temporary, artifact).and_then(|file| {
            fs::rename(&temporary, path)?;
            Ok(Artifact { file, length: artifact.len() as u64 })
        });
        if written.is_err() {
            // What is half written may be the reason that the disk is full.
            let _ = fs::remove_file(&temporary);
        }
        let inserted = written?;
        if let Err(error) = self.evict(path) {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot tidy the artifact cache");
        }
        Ok(inserted)
    }

    /// Removes what was used longest ago until the rest fits, the artifact at `newest` spared.
    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut artifacts = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                let metadata = entry.metadata()?;
                artifacts.push((metadata.modified()?, metadata.len(), entry.path()));
            }
        }
        artifacts.sort_unstable();
        let mut total: u64 = artifacts.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in artifacts {
            if total <= self.max_bytes {
                break;
            }
            if path != newest {
                fs::remove_file(&path)?;
                total -= length;
            }
        }
        Ok(())
    }
}

fn write_artifact(path: &Path, artifact: &[u8]) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(artifact)?;
    file.write_all(&artifact_trailer(artifact))?;
    Ok(file)
}

/// Holds a lock file for as long as it lives.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn acquire(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => file.lock()?,
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Self { path: path.to_owned(), _file: file })
    }
}

impl Drop for Lock {
    /// Someone who waited for this very file still gets it; someone who comes now makes a new one. At worst both
    /// look for the artifact, and it is there.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
