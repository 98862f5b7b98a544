//! One compilation of a module at a time, whoever asks for it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::is_same_file;

/// Holds a lock file for as long as it lives. Only its holder removes the file from its path.
pub(super) struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// Waits for whoever holds the lock.
    pub(super) fn acquire(path: &Path) -> io::Result<Self> {
        loop {
            let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            file.lock()?;
            if let Some(lock) = Self::of(path, file)? {
                return Ok(lock);
            }
        }
    }

    /// Removes a lock file that nobody holds: its holder was killed.
    pub(super) fn remove_abandoned(path: &Path) -> io::Result<()> {
        let file = match File::options().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => Self::of(path, file).map(drop),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The lock, unless an earlier holder removed the locked file from its path: the lock is then another file's.
    fn of(path: &Path, locked: File) -> io::Result<Option<Self>> {
        let there = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            there => there?,
        };
        Ok(is_same_file(&locked.metadata()?, &there).then(|| Self { path: path.to_owned(), _file: locked }))
    }
}

impl Drop for Lock {
    /// Whoever waited for this file sees that it is gone, and begins again.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
