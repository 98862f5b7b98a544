//! The container's root, as seen from outside: the image decides every path and link in it, and none leads out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use anyhow::Context as _;
use engines::artifact_cache::ModuleFile;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::statvfs;
use oci_spec::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, fstat, fstatfs, mkdirat, open, openat2};
use rustix::io::Errno;

use super::devices::is_bind;
use crate::protocol::RootfsMount;
use crate::read_only::path_of;

/// How often a path is looked up that others keep from being found.
const MOST_TRIES: u32 = 1000;

pub(super) struct Rootfs {
    root: OwnedFd,
    /// Folders and files that are not mounted yet, and where they will be.
    volumes: Vec<Volume>,
    /// The folders of an image's layers, where the root is made of these and of changes to them.
    layers: Option<String>,
}

struct Volume {
    destination: PathBuf,
    source: PathBuf,
    read_only: bool,
}

impl Volume {
    /// libcontainer would not say which one is missing.
    fn ensure_present(&self) -> anyhow::Result<()> {
        let found = fs::metadata(&self.source).map(drop);
        found.with_context(|| format!("cannot mount {} at {}", self.source.display(), self.destination.display()))
    }
}

impl Rootfs {
    /// Mounts what containerd's snapshotter prepared onto `path`. What was mounted before a failure stays: the shim unmounts
    /// it when it cleans up.
    pub(super) fn mount(mounts: &[RootfsMount], path: &Path) -> anyhow::Result<()> {
        for mount in mounts {
            let kind = (!mount.kind.is_empty()).then_some(mount.kind.as_str());
            containerd_shim::mount::mount_rootfs(kind, Some(&mount.source), &mount.options, path)
                .with_context(|| format!("cannot mount the container's root at {}", path.display()))?;
        }
        if mounts.is_empty() { Ok(()) } else { without_devices(path) }
    }

    /// `mounts` are those of a spec that are still to be made.
    pub(super) fn open_root(path: &Path, mounts: &[Mount]) -> anyhow::Result<Self> {
        let root = open_folder(path);
        let root = root.with_context(|| format!("cannot open the container's root {}", path.display()))?;
        let volumes = mounts.iter().filter(|mount| is_bind(mount)).filter_map(|mount| {
            let (destination, source) = (mount.destination().clone(), mount.source().clone()?);
            let mut options = mount.options().iter().flatten();
            let read_only = options.any(|option| ["ro", "rro"].contains(&option.as_str()));
            Some(Volume { destination, source, read_only })
        });
        let volumes: Vec<Volume> = volumes.collect();
        volumes.iter().try_for_each(Volume::ensure_present)?;
        Ok(Self { root, volumes, layers: None })
    }

    /// With what is known of a root that was [mounted](Self::mount) and whose container did not run yet.
    pub(super) fn made_of(self, mounts: &[RootfsMount]) -> Self {
        Self { layers: layers(mounts), ..self }
    }

    /// Opens a regular file for reading. The path is the container's: absolute or not, it starts at its root, and
    /// neither `..` nor a link leaves it, nor the volume that it is in.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let found = self.find(path)?;
        // Opening a device does something to it, even where nothing is read: a watchdog begins to count.
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // Some of these wait for the kernel to say something, and take it from others.
        if fstatfs(&found)?.f_type == PROC_SUPER_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file of procfs"));
        }
        File::open(path_of(&found))
    }

    /// Whether there is a folder, at a path as that of [`open`](Self::open).
    pub(super) fn ensure_folder(&self, path: &Path) -> io::Result<()> {
        match FileType::from_raw_mode(fstat(self.find(path)?)?.st_mode) {
            FileType::Directory => Ok(()),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// Makes a folder where there is none, and those that it is in, as runc does for a working directory.
    pub(super) fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut folder = PathBuf::from("/");
        for part in path.components().filter(|part| *part != Component::RootDir) {
            let around = folder.clone();
            folder.push(part);
            match self.find(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_in(&around, part.as_os_str())?,
                found => drop(found?),
            }
        }
        self.ensure_folder(&folder)
    }

    fn make_in(&self, around: &Path, name: &OsStr) -> io::Result<()> {
        if self.volume_of(around).is_some_and(|volume| volume.read_only) {
            return Err(Errno::ROFS.into());
        }
        match mkdirat(self.find(around)?, name, Mode::from_raw_mode(0o755)) {
            // Another container of the volume was first, or it is a link to nothing.
            Err(Errno::EXIST) => Ok(()),
            made => Ok(made?),
        }
    }

    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let path = Path::new("/").join(path);
        match self.volume_of(&path) {
            None => Ok(find_inside(&self.root, &path)?),
            // Whoever made the spec names it, not the image.
            Some(volume) if path == volume.destination => Ok(open(&volume.source, finding(), Mode::empty())?),
            Some(volume) => {
                let rest = path.strip_prefix(&volume.destination).map_err(io::Error::other)?;
                Ok(find_inside(&open_folder(&volume.source)?, rest)?)
            }
        }
    }

    /// Who a file is that was [opened](Self::open) at this path; `None`: it must be read to know that, because it is in
    /// no image.
    pub(super) fn module_file(&self, path: &Path, file: &File) -> Option<ModuleFile> {
        let layers = self.layers.as_deref()?;
        let in_image = self.volume_of(&Path::new("/").join(path)).is_none();
        in_image.then(|| file.metadata().ok()).flatten().map(|metadata| ModuleFile::new(layers, &metadata))
    }

    fn volume_of(&self, path: &Path) -> Option<&Volume> {
        let around = self.volumes.iter().filter(|volume| path.starts_with(&volume.destination));
        around.max_by_key(|volume| volume.destination.components().count())
    }
}

/// Where a root is mounted as containerd's overlayfs snapshotter asks for it: from layers that lie in folders of the node
/// (of a single one, to be read only, it mounts the folder itself). A file there has its inode's number and time of change
/// from the node's file system, which nobody but root of the node can set.
fn layers(mounts: &[RootfsMount]) -> Option<String> {
    let [RootfsMount { kind, source, options }] = mounts else { return None };
    match kind.as_str() {
        "overlay" => options.iter().find_map(|option| option.strip_prefix("lowerdir=")).map(str::to_owned),
        "bind" if options.iter().any(|option| option == "ro") => Some(source.clone()),
        _ => None,
    }
}

/// Makes the device nodes that an image holds dead: those of a container are in its /dev, a mount of its own.
fn without_devices(path: &Path) -> anyhow::Result<()> {
    // A remount says all flags anew.
    let kept = MsFlags::from_bits_truncate(statvfs(path)?.flags().bits());
    let flags = kept | MsFlags::MS_NODEV | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    mount(None::<&Path>, path, None::<&Path>, flags, None::<&Path>)
        .with_context(|| format!("cannot mount the container's root at {} without devices", path.display()))
}

/// Without opening anything.
fn finding() -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC
}

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    open(path, finding() | OFlags::DIRECTORY, Mode::empty())
}

fn find_inside(folder: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    let find = || openat2(folder, path, finding(), Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    // While anything is mounted or renamed on the node, the kernel cannot say where a `..` leads (openat2(2)).
    let mut found = find();
    for _ in 1..MOST_TRIES {
        if !matches!(found, Err(Errno::AGAIN)) {
            break;
        }
        found = find();
    }
    found
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::MountBuilder;

    use super::*;

    #[test]
    fn a_volume_is_known_by_its_type_or_by_an_option() {
        let [root, volume] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::write(volume.path().join("file"), "").unwrap();
        for (kind, option) in [("bind", "ro"), ("none", "bind"), ("", "rbind")] {
            let mount = MountBuilder::default().typ(kind).options([option.to_owned()]);
            let mount = mount.source(volume.path()).destination("/volume").build().unwrap();
            let rootfs = Rootfs::open_root(root.path(), &[mount]).unwrap();
            assert!(rootfs.open(Path::new("/volume/file")).is_ok(), "{kind} {option}");
        }
    }

    #[test]
    fn files_of_processes_are_not_read() {
        let rootfs = Rootfs::open_root(Path::new("/"), &[]).unwrap();
        let error = rootfs.open(Path::new("/proc/self/status")).unwrap_err();
        assert_eq!(error.to_string(), "a file of procfs");
    }

    #[test]
    fn a_folder_is_made_in_the_root_or_a_volume_and_nowhere_else() {
        let [root, volume, node] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(node.path(), root.path().join("out")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let [writable, fixed] = [("/data", "rbind"), ("/fixed", "ro")].map(|(destination, option)| {
            let mount = MountBuilder::default().typ("bind").options([option.to_owned()]);
            mount.source(volume.path()).destination(destination).build().unwrap()
        });
        let rootfs = Rootfs::open_root(root.path(), &[writable, fixed]).unwrap();
        let make = |path: &str| rootfs.make_folder(Path::new(path)).map_err(|error| error.kind());
        for path in ["/", "/work/deep", "/work/deep", "/data/inside", "../../above"] {
            assert_eq!(make(path), Ok(()), "{path}");
        }
        assert!(root.path().join("work/deep").is_dir() && root.path().join("above").is_dir());
        assert!(volume.path().join("inside").is_dir());
        assert_eq!(make("/fixed/new"), Err(io::ErrorKind::ReadOnlyFilesystem));
        assert_eq!(make("/fixed/inside"), Ok(()));
        assert_eq!(make("/file/below"), Err(io::ErrorKind::NotADirectory));
        assert!(make("/out/escaped").is_err());
        assert_eq!(fs::read_dir(node.path()).unwrap().count(), 0);
    }
}
