//! A mount table of one's own: what is mounted in it is not seen outside.

use std::fs::{self, File};
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A mount namespace. It lasts as long as this value or a process inside, and all that was mounted inside goes with it.
pub struct Mounts {
    namespace: File,
}

impl Mounts {
    /// Begins with everything that is mounted on this machine.
    pub fn unshare() -> io::Result<Self> {
        on_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Nothing gets out; inside, mounts are shared, as on a machine that was booted.
            for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>)?;
            }
            Ok(Self { namespace: File::open("/proc/thread-self/ns/mnt")? })
        })
    }

    /// Does something inside, in a thread. The processes it starts stay inside.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_a_thread(|| {
            // Threads share root and working directory, and could not see different mounts then.
            unshare(CloneFlags::CLONE_FS).expect("a thread of its own");
            setns(&self.namespace, CloneFlags::CLONE_NEWNS).expect("mounts to enter");
            work()
        })
    }

    /// Has what is written below `folder` from now on written to `layer` instead, an empty folder outside of it.
    pub fn divert_writes(&self, folder: &Path, layer: &Path) -> io::Result<()> {
        let [upper, work] = ["upper", "work"].map(|name| layer.join(name));
        fs::create_dir(&upper)?;
        fs::create_dir(&work)?;
        let [lower, upper, work] = [folder, &upper, &work].map(Path::display);
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        let overlay = Some("overlay");
        self.within(|| Ok(mount(overlay, folder, overlay, MsFlags::empty(), Some(options.as_str()))?))
    }

    /// Mounts an empty file system on `folder` that holds so many bytes.
    pub fn small_disk(&self, folder: &Path, bytes: u64) -> io::Result<()> {
        let (tmpfs, options) = (Some("tmpfs"), format!("size={bytes}"));
        self.within(|| Ok(mount(tmpfs, folder, tmpfs, MsFlags::empty(), Some(options.as_str()))?))
    }
}

/// A thread that ends right after need not find its way back.
fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_inside_is_not_seen_outside() {
        let mounts = Mounts::unshare().expect("mounts, which take root");
        let [folder, layer] = [(); 2].map(|()| tempfile::tempdir().expect("a temporary folder"));
        fs::write(folder.path().join("old"), "outside").expect("a file");
        mounts.divert_writes(folder.path(), layer.path()).expect("an overlay");
        mounts.within(|| {
            fs::write(folder.path().join("old"), "inside").expect("a file");
            fs::write(folder.path().join("new"), "inside").expect("a file");
            assert_eq!(fs::read_to_string(folder.path().join("old")).expect("the file"), "inside");
        });
        assert_eq!(fs::read_to_string(folder.path().join("old")).expect("the file"), "outside");
        assert!(!folder.path().join("new").exists());
    }
}
