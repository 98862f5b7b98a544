//! Descriptors of a process that is cloned into a container, and that no execution closes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};

use libc::{O_CLOEXEC, dup3};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::stat::fstat;
use rustix::fs::{Mode, OFlags, open};

const FIRST: RawFd = 3;

/// Of this many free numbers in a row, none that follows is looked for: the lowest free one is always taken next.
const MOST_FREE: RawFd = 256;

/// Descriptors, and the files behind them: once one is closed, another file may get its number.
#[derive(Clone, Default)]
pub(super) struct OpenFiles(BTreeMap<RawFd, FileId>);

/// The device and the inode.
type FileId = (u64, u64);

impl OpenFiles {
    /// What is open above the standard streams.
    pub(super) fn now() -> Self {
        Self(open_descriptors().into_iter().filter_map(|descriptor| Some((descriptor, file_of(descriptor)?))).collect())
    }

    /// The descriptors that still lead where they did.
    pub(super) fn still_open(&self) -> impl Iterator<Item = RawFd> {
        self.0
            .iter()
            .filter(|(descriptor, file)| file_of(**descriptor) == Some(**file))
            .map(|(descriptor, _)| *descriptor)
    }
}

fn file_of(descriptor: RawFd) -> Option<FileId> {
    fstat(descriptor).ok().map(|status| (status.st_dev, status.st_ino))
}

/// The descriptors of this process above the standard streams. The container need not have a /proc to ask.
pub(super) fn open_descriptors() -> BTreeSet<RawFd> {
    let (mut open, mut descriptor) = (BTreeSet::new(), FIRST);
    while descriptor - open.last().copied().unwrap_or(FIRST) <= MOST_FREE {
        if fcntl(descriptor, FcntlArg::F_GETFD).is_ok() {
            open.insert(descriptor);
        }
        descriptor += 1;
    }
    open
}

/// Has every descriptor above the standard streams that is not `kept` lead to the container's root, and nowhere else.
/// libcontainer has a folder of the node's `/proc` open, for as long as the process runs: from there, whoever may follow
/// the links in it comes to every file of the node. The numbers stay taken, as whoever has one believes it his own.
pub(super) fn disarm_all_but(kept: &BTreeSet<RawFd>) -> io::Result<()> {
    let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for descriptor in open_descriptors().difference(kept).filter(|descriptor| **descriptor != root.as_raw_fd()) {
        // SAFETY: the number goes on being an open descriptor, of the same owner.
        #[expect(unsafe_code, reason = "see above")]
        if unsafe { dup3(root.as_raw_fd(), *descriptor, O_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::io::dup2;

    use super::*;

    #[test]
    fn a_descriptor_that_leads_elsewhere_by_now_is_no_longer_the_same() {
        let open_path = |path| open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("a file");
        let (kept, mut replaced): (OwnedFd, OwnedFd) = (open_path("/proc"), open_path("/proc"));
        let opened = OpenFiles::now();
        dup2(open_path("/"), &mut replaced).expect("another file");
        let still_open: BTreeSet<_> = opened.still_open().collect();
        assert!(still_open.contains(&kept.as_raw_fd()));
        assert!(!still_open.contains(&replaced.as_raw_fd()));
    }
}
