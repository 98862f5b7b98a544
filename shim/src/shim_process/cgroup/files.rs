//! The files of a cgroup.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

/// A cgroup's folder in one hierarchy.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn text(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.0.join(file))
    }

    pub(super) fn write(&self, file: &str, value: &str) -> io::Result<()> {
        File::options().write(true).open(self.0.join(file))?.write_all(value.as_bytes())
    }

    /// A file of one number: `max` is the largest; 0 where this kernel has no such file.
    pub(super) fn number(&self, file: &str) -> u64 {
        let text = self.text(file).unwrap_or_default();
        if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or_default() }
    }

    /// A file of lines such as `nr_periods 5`; empty where this kernel has no such file.
    pub(super) fn table(&self, file: &str) -> HashMap<String, u64> {
        let text = self.text(file).unwrap_or_default();
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
    }
}

/// The numbers of a block device, `8:0`.
pub(super) fn device_numbers(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
