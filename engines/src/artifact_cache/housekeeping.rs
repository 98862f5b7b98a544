//! What is in the cache, and what of it should not be.

use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::file::{Description, Entry};
use super::lock::Lock;
use super::{ARTIFACT, ArtifactCache, CHECKED, LOCK, MODULE, PARTIAL};

/// Files that are known without reading them. One that is forgotten is read again.
const MAX_LINKS: usize = 10_000;
/// Nobody writes a file for so long: whoever did was killed.
const ABANDONED: Duration = Duration::from_secs(3600);

/// An artifact of the cache, as a list shows it.
#[derive(Clone, Debug)]
pub struct Listed {
    pub engine: String,
    /// Stands for the engine's version, configuration and processor.
    pub build: String,
    /// The SHA-256 of the module.
    pub module: String,
    /// Bytes on disk.
    pub length: u64,
    pub last_use: SystemTime,
    pub path: PathBuf,
}

impl Listed {
    /// What is known of the module; `None` where the file is damaged.
    pub fn description(&self) -> Option<Description> {
        Entry::open(&self.path).ok().map(|entry| entry.description)
    }
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub artifacts: usize,
    pub bytes: u64,
}

/// What a check found; the damaged ones were removed.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    pub whole: usize,
    pub damaged: Vec<Listed>,
}

impl ArtifactCache {
    /// All artifacts, the one used last first.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<Listed>> {
        let mut artifacts: Vec<_> = self.files()?.iter().filter_map(listed).collect();
        artifacts.sort_by(|one, other| other.last_use.cmp(&one.last_use).then_with(|| one.path.cmp(&other.path)));
        Ok(artifacts)
    }

    /// Removes artifacts until the rest fits into `max_bytes`, the ones used longest ago first, and what processes that
    /// were killed have left.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn prune(&self, max_bytes: u64) -> io::Result<Pruned> {
        self.shrink(max_bytes, None)
    }

    /// Reads all artifacts and removes the damaged ones: they are compiled again when they are needed.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn verify(&self) -> io::Result<Verified> {
        let mut verified = Verified::default();
        for artifact in self.list()? {
            match Entry::open(&artifact.path) {
                Ok(entry) if entry.is_whole() => verified.whole += 1,
                // Another process has removed it since the list was made.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => {
                    remove(&artifact.path)?;
                    verified.damaged.push(artifact);
                }
            }
        }
        Ok(verified)
    }

    /// Removes what is over the cache's size, the artifact at `newest` spared.
    pub(super) fn tidy(&self, newest: Option<&Path>) -> io::Result<()> {
        self.shrink(self.max_bytes, newest).map(drop)
    }

    fn shrink(&self, max_bytes: u64, spared: Option<&Path>) -> io::Result<Pruned> {
        let mut artifacts: Vec<_> =
            self.list()?.into_iter().filter(|artifact| Some(&*artifact.path) != spared).collect();
        let spared = spared.and_then(|path| fs::metadata(path).ok()).map_or(0, |file| file.len());
        let mut total = spared + artifacts.iter().map(|artifact| artifact.length).sum::<u64>();
        let mut pruned = Pruned::default();
        while total > max_bytes
            && let Some(oldest) = artifacts.pop()
        {
            remove(&oldest.path)?;
            total -= oldest.length;
            pruned = Pruned { artifacts: pruned.artifacts + 1, bytes: pruned.bytes + oldest.length };
        }
        self.sweep()?;
        Ok(pruned)
    }

    /// Removes what belongs to no artifact or to nobody, and the oldest links where there are too many.
    fn sweep(&self) -> io::Result<()> {
        let mut links = Vec::new();
        for file in self.files()? {
            let path = file.path();
            match path.extension().and_then(OsStr::to_str) {
                // What a link leads to is looked for, not the link.
                Some(MODULE) if path.exists() => {
                    links.extend(file.metadata().and_then(|link| Ok((link.modified()?, path))));
                }
                Some(MODULE) => remove_file(&path)?,
                Some(CHECKED) if !path.with_extension(ARTIFACT).exists() => remove_file(&path)?,
                Some(PARTIAL) if is_abandoned(&file) => remove_file(&path)?,
                Some(LOCK) => Lock::remove_abandoned(&path)?,
                _ => {}
            }
        }
        links.sort_unstable();
        let too_many = links.len().saturating_sub(MAX_LINKS);
        links.iter().take(too_many).try_for_each(|(_, link)| remove_file(link))
    }

    fn files(&self) -> io::Result<Vec<DirEntry>> {
        fs::read_dir(&self.folder)?.collect()
    }
}

fn listed(file: &DirEntry) -> Option<Listed> {
    let path = file.path();
    let key = path.file_name()?.to_str()?.strip_suffix(ARTIFACT)?.strip_suffix('.')?;
    let mut parts = key.rsplitn(3, '-').map(str::to_owned);
    let (module, build, engine) = (parts.next()?, parts.next()?, parts.next()?);
    let length = file.metadata().ok()?.len();
    Some(Listed { engine, build, module, length, last_use: last_use(&path), path })
}

/// An artifact without a record was not used since it was written.
fn last_use(artifact: &Path) -> SystemTime {
    let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    time(&artifact.with_extension(CHECKED)).or_else(|_| time(artifact)).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn is_abandoned(file: &DirEntry) -> bool {
    let written = file.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > ABANDONED))
}

/// Removes an artifact. Links to it go at the next occasion.
fn remove(artifact: &Path) -> io::Result<()> {
    remove_file(artifact)?;
    remove_file(&artifact.with_extension(CHECKED))
}

/// Another process may have been quicker.
fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
