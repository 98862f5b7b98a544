//! A module's bytes.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;

use engines::artifact_cache::memory_file;
use memmap2::{Mmap, MmapOptions};
use rustix::fs::{SealFlags, fcntl_add_seals};

/// A larger module is refused: it would not be a program but an attack on the node's memory.
const MAX_BYTES: u64 = 512 << 20;

/// A copy of a module that nobody can change: its file may be a guest's.
pub(super) struct ModuleBytes {
    file: File,
    bytes: Mmap,
}

impl ModuleBytes {
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut copy = memory_file("module")?;
        if io::copy(&mut file.take(MAX_BYTES + 1), &mut copy)? > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {MAX_BYTES} bytes")));
        }
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
        // SAFETY: sealed, the file cannot be changed. Private, since a sealed file cannot be shared before Linux 6.7.
        #[expect(unsafe_code, reason = "see above")]
        let bytes = unsafe { MmapOptions::new().map_copy_read_only(&copy) }?;
        Ok(Self { file: copy, bytes })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Deref for ModuleBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}
