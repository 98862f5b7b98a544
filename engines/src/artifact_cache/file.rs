//! The file of an artifact: the artifact from its first byte on, so that an engine can map it, the description of its
//! module (JSON), and a trailer: magic, the lengths of both (8 bytes each, little-endian) and the XXH3-128 of all
//! that is before it. The checksum finds damage. Forgery is kept out by the folder: root's alone, and never part of an
//! image.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::LazyLock;
use std::time::SystemTime;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::module_info::ModuleInfo;

const MAGIC: &[u8; 8] = b"daprwas2";
/// Where in a trailer its numbers begin, after the magic, and how long it is.
const LENGTH: usize = 8;
const DESCRIBED: usize = 16;
const SUM: usize = 24;
const TRAILER: usize = 40;

/// An artifact in an open file: what is read through it stays the same when the cache drops the file.
#[derive(Debug)]
pub struct Artifact {
    file: File,
    length: u64,
}

impl Artifact {
    /// An artifact that is in no cache.
    pub fn in_memory(artifact: &[u8]) -> io::Result<Self> {
        let mut file = memory_file("artifact")?;
        file.write_all(artifact)?;
        Self::sealed(file)
    }

    /// All of a [`memory_file`], which nobody can change from here on.
    pub fn sealed(file: File) -> io::Result<Self> {
        fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        let length = file.metadata()?.len();
        Ok(Self { file, length })
    }

    pub fn is_sealed(&self) -> bool {
        fcntl_get_seals(&self.file).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
    }

    /// The same artifact, by another descriptor of its file.
    ///
    /// # Errors
    /// The descriptor is another file's, of which nothing is known.
    pub fn with_file(self, file: File) -> io::Result<Self> {
        if !is_same_file(&self.file.metadata()?, &file.metadata()?) {
            return Err(io::Error::other("the descriptor is not the artifact's"));
        }
        Ok(Self { file, ..self })
    }

    /// The file; the artifact starts at its first byte, and other bytes may follow it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Bytes of the artifact.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The artifact's bytes, mapped.
    pub fn map(&self) -> io::Result<Bytes> {
        map(&self.file, self.length)
    }
}

/// Whether both are of one file, by whatever paths or descriptors it was reached.
pub(super) fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// An empty file in memory that can be sealed, and goes with its last descriptor.
pub fn memory_file(name: &str) -> io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

fn map(file: &File, length: u64) -> io::Result<Bytes> {
    // SAFETY: the file is in a folder that only this user can write, and files in it are replaced, never changed; or it
    // is a sealed file in memory. Private, since a sealed file cannot be shared before Linux 6.7.
    #[expect(unsafe_code, reason = "see above")]
    let map = unsafe { memmap2::MmapOptions::new().len(length as usize).map_copy_read_only(file) }?;
    Ok(Bytes::from_owner(map))
}

/// What is known of a module without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Where it was found first, for people to read.
    pub name: String,
    pub info: ModuleInfo,
}

/// An artifact and the description of its module.
#[derive(Debug)]
pub struct Entry {
    pub artifact: Artifact,
    pub description: Description,
}

impl Entry {
    /// Opens a file of the cache. Damage within its parts is not looked for: see [`is_whole`](Self::is_whole).
    ///
    /// # Errors
    /// There is none ([`io::ErrorKind::NotFound`]), or it is no such file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let other_file = || io::Error::from(io::ErrorKind::InvalidData);
        let file = File::open(path)?;
        let end = file.metadata()?.len().checked_sub(TRAILER as u64).ok_or_else(other_file)?;
        let mut trailer = [0; TRAILER];
        file.read_exact_at(&mut trailer, end)?;
        let number = |at: usize| u64::from_le_bytes(trailer[at..at + 8].try_into().unwrap_or_default());
        let (length, described) = (number(LENGTH), number(DESCRIBED));
        if !trailer.starts_with(MAGIC) || length.checked_add(described) != Some(end) {
            return Err(other_file());
        }
        let mut description = vec![0; usize::try_from(described).map_err(|_| other_file())?];
        file.read_exact_at(&mut description, length)?;
        let description = serde_json::from_slice(&description)?;
        Ok(Self { artifact: Artifact { file, length }, description })
    }

    /// Reads all of the file and compares its checksum.
    pub(super) fn is_whole(&self) -> bool {
        let whole = || -> io::Result<bool> {
            let file = &self.artifact.file;
            let content = map(file, file.metadata()?.len())?;
            let (content, trailer) = content.split_at(content.len().saturating_sub(TRAILER));
            let mut sum = Xxh3::new();
            sum.update(content);
            Ok(trailer.get(SUM..) == Some(&sum.digest128().to_le_bytes()))
        };
        whole().unwrap_or(false)
    }

    /// Writes a file of the cache.
    pub(super) fn write(path: &Path, artifact: &Artifact, description: Description) -> io::Result<Self> {
        let content = artifact.map()?;
        let described = serde_json::to_vec(&description)?;
        let mut sum = Xxh3::new();
        sum.update(&content);
        sum.update(&described);
        let mut trailer = [0; TRAILER];
        trailer[..LENGTH].copy_from_slice(MAGIC);
        trailer[LENGTH..DESCRIBED].copy_from_slice(&artifact.length.to_le_bytes());
        trailer[DESCRIBED..SUM].copy_from_slice(&(described.len() as u64).to_le_bytes());
        trailer[SUM..].copy_from_slice(&sum.digest128().to_le_bytes());
        let mut file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&content)?;
        file.write_all(&described)?;
        file.write_all(&trailer)?;
        Ok(Self { artifact: Artifact { file, length: artifact.length }, description })
    }
}

/// A small file beside an artifact: the state of the artifact's file when all of it was last checked. Its time of change
/// is that of the artifact's last use.
pub(super) struct Checked<'a>(pub(super) &'a Path);

impl Checked<'_> {
    /// Whether the entry was checked since the machine started, and its file is the same as then. Notes its use.
    pub(super) fn vouches_for(&self, entry: &Entry) -> bool {
        let vouches = || -> io::Result<bool> {
            let mut record = File::open(self.0)?;
            let mut state = String::new();
            record.read_to_string(&mut state)?;
            // A time that cannot be set makes the artifact look older, no more.
            let _ = record.set_modified(SystemTime::now());
            Ok(state == file_state(&entry.artifact.file)?)
        };
        vouches().unwrap_or(false)
    }

    /// To be called when all of the entry's file was just checked, or written.
    pub(super) fn record(&self, entry: &Entry) -> io::Result<()> {
        let mut record = File::options().write(true).create(true).truncate(true).mode(0o600).open(self.0)?;
        record.write_all(file_state(&entry.artifact.file)?.as_bytes())
    }
}

/// Changes with every change of the file, and with every start of the machine: what a crash left half written has the
/// length that it should have.
fn file_state(file: &File) -> io::Result<String> {
    static BOOT: LazyLock<String> =
        LazyLock::new(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    let metadata = file.metadata()?;
    let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
    Ok(format!("{device} {inode} {length} {}.{:09} {}", metadata.ctime(), metadata.ctime_nsec(), *BOOT))
}
