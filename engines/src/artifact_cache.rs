//! Artifacts on the node: compiled once, loaded by every container that runs the same module.
//!
//! A folder holds, of each artifact, `KEY.artifact` and `KEY.checked` (`file.rs` has their formats), and links
//! `FILE.module` to artifacts from the module files that they are known to be compiled from ([`ModuleFile`]), so that
//! a module need not be read to find its artifact. See docs/decisions/0007-modules-are-known-by-their-files.md.
//!
//! Trouble with the cache costs time, never the guest: what cannot be read is compiled again, what cannot be
//! written is used from memory.

mod file;
mod housekeeping;
mod lock;

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::engine::Engine;
use file::Checked;
pub use file::{Artifact, Description, Entry, memory_file};
pub use housekeeping::{Listed, Pruned, Verified};
use lock::Lock;

const ARTIFACT: &str = "artifact";
const CHECKED: &str = "checked";
const MODULE: &str = "module";
const LOCK: &str = "lock";
const PARTIAL: &str = "partial";

/// Which artifact: everything that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactKey(String);

impl ArtifactKey {
    pub fn new(engine: &dyn Engine, module: &[u8]) -> Self {
        Self(format!("{}-{}-{}", engine.name(), build(engine), hex(&Sha256::digest(module))))
    }
}

/// Everything that an artifact depends on but the module and the name of its engine.
fn build(engine: &dyn Engine) -> String {
    hex(&Sha256::digest(engine.fingerprint())[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file of a module, in the state that it is in: whoever changes the file makes it another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile(String);

impl ModuleFile {
    /// `place` is what the file's inode number is unique in, such as the layers of an image on this node. It must not be
    /// a file system whose owner may set an inode's time of change at will.
    pub fn new(place: &str, file: &Metadata) -> Self {
        let (inode, length) = (file.ino(), file.len());
        let changed = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        Self(format!("{inode} {length} {changed:?} {place}"))
    }
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

    /// What the engine made of a module file that was [remembered](Self::remember).
    pub fn find(&self, engine: &dyn Engine, module: &ModuleFile) -> Option<Entry> {
        let artifact = fs::read_link(self.link(engine, module)).ok()?;
        self.open_used(&self.folder.join(artifact))
    }

    /// Lets the artifact for `key` be found by the module's file, of which all was read for the key.
    pub fn remember(&self, engine: &dyn Engine, module: &ModuleFile, key: &ArtifactKey) {
        let link = self.link(engine, module);
        let partial = link.with_extension(partial_extension());
        let remembered = symlink(format!("{}.{ARTIFACT}", key.0), &partial)
            .and_then(|()| fs::rename(&partial, &link))
            .and_then(|()| self.tidy(None));
        if let Err(error) = remembered {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot remember a module in the artifact cache");
        }
    }

    fn link(&self, engine: &dyn Engine, ModuleFile(file): &ModuleFile) -> PathBuf {
        let name = Sha256::digest(format!("{} {} {file}", engine.name(), build(engine)));
        self.folder.join(hex(&name)).with_extension(MODULE)
    }

    /// The artifact for `key`, compiled by `compile` unless it is there. Whoever asks for the same key meanwhile, in
    /// any process, waits for that one compilation.
    ///
    /// # Errors
    /// Those of `compile`.
    pub fn get_or_compile<E>(
        &self,
        key: &ArtifactKey,
        description: Description,
        compile: impl FnOnce() -> Result<Artifact, E>,
    ) -> Result<Entry, E> {
        let path = self.folder.join(format!("{}.{ARTIFACT}", key.0));
        if let Some(entry) = self.open_used(&path) {
            return Ok(entry);
        }
        let lock = Lock::acquire(&path.with_extension(LOCK));
        if let Err(error) = &lock {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot lock the artifact cache");
        }
        if let Some(entry) = self.open_used(&path) {
            return Ok(entry);
        }
        let artifact = compile()?;
        match self.insert(&path, &artifact, description.clone()) {
            Ok(entry) => Ok(entry),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "cannot keep the compiled module in the artifact cache");
                Ok(Entry { artifact, description })
            }
        }
    }

    /// Opens an artifact that is whole, and notes that it was used.
    fn open_used(&self, path: &Path) -> Option<Entry> {
        let entry = Entry::open(path).ok()?;
        let checked = path.with_extension(CHECKED);
        let checked = Checked(&checked);
        if checked.vouches_for(&entry) {
            return Some(entry);
        }
        if !entry.is_whole() {
            return None;
        }
        // Without a record it is checked again the next time.
        let _ = checked.record(&entry);
        Some(entry)
    }

    fn insert(&self, path: &Path, artifact: &Artifact, description: Description) -> io::Result<Entry> {
        let partial = path.with_extension(partial_extension());
        let written = Entry::write(&partial, artifact, description).and_then(|entry| {
            fs::rename(&partial, path)?;
            Checked(&path.with_extension(CHECKED)).record(&entry)?;
            Ok(entry)
        });
        if written.is_err() {
            // What is half written may be the reason that the disk is full.
            let _ = fs::remove_file(&partial);
        }
        let inserted = written?;
        if let Err(error) = self.tidy(Some(path)) {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot tidy the artifact cache");
        }
        Ok(inserted)
    }
}

/// Of a file that is being written, which no other process writes.
fn partial_extension() -> String {
    format!("{}.{PARTIAL}", std::process::id())
}
