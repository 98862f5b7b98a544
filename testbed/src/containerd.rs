//! A containerd of one's own.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Where shims put their sockets, whichever containerd they belong to.
const SHIM_SOCKETS: &str = "/run/containerd/s";
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long to wait for what comes at once on an idle machine. Long, for a busy or an emulated one: it costs nothing
/// where all goes well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `ctr` needs. The others look for devices, open sockets of their own, or write outside the folder.
const DISABLED_PLUGINS: [&str; 11] = [
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.grpc.v1.cri",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.nri.v1.nri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
];

/// A running containerd with root, state and sockets in a temporary folder, and a containerd namespace that no
/// other has, by which everything made for its containers can be told apart.
///
/// Dropped, it takes all of that with it: tasks and shims that still run, mounts, cgroups, sockets and the folder.
pub struct Containerd {
    daemon: Child,
    folder: TempDir,
    namespace: String,
    path: OsString,
    /// Sockets that were there before.
    foreign_sockets: BTreeSet<PathBuf>,
}

impl Containerd {
    /// Starts the daemon and waits until it answers. `programs` are folders to look in for shims, and for
    /// `containerd` and `ctr` themselves, before those of `PATH`.
    ///
    /// # Panics
    ///
    /// Without root or an installed containerd, and when it does not answer within [`PATIENCE`]; its log is shown.
    pub fn start(programs: &[&Path]) -> Self {
        Self::start_with_environment(programs, &[])
    }

    /// The same, with more variables in the environment of containerd and so of its shims.
    pub fn start_with_environment(programs: &[&Path], environment: &[(&str, &str)]) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);

        let folder = tempfile::Builder::new().prefix("containerd-").tempdir().expect("a temporary folder");
        let config = folder.path().join("config.toml");
        fs::write(&config, configuration(folder.path())).expect("containerd's configuration");
        let mut path: Vec<PathBuf> = programs.iter().map(PathBuf::from).collect();
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let path = env::join_paths(path).expect("folders without a colon in their names");
        let log = File::create(folder.path().join("log")).expect("containerd's log");
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(config)
            .env("PATH", &path)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor of the log"))
            .stderr(log)
            .spawn()
            .expect("containerd, from the Debian package of this name");
        let mut containerd = Self {
            daemon,
            folder,
            namespace: format!("testbed-{}-{}", process::id(), STARTED.fetch_add(1, Ordering::Relaxed)),
            path,
            foreign_sockets: shim_sockets(),
        };
        containerd.wait_until_it_answers();
        containerd
    }

    /// The folder of everything below, removed with this value. Free for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn address(&self) -> PathBuf {
        self.folder().join("containerd.sock")
    }

    /// Runs `ctr` to its end.
    pub fn ctr(&self, arguments: &[&str]) -> Output {
        self.ctr_command(arguments).output().expect("ctr, from the Debian package containerd")
    }

    /// `ctr` in this containerd and its namespace, still to be started.
    pub fn ctr_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.env("PATH", &self.path).stdin(Stdio::null());
        command.arg("--address").arg(self.address()).args(["--namespace", &self.namespace]).args(arguments);
        command
    }

    /// Imports an OCI archive.
    ///
    /// # Panics
    ///
    /// With `ctr`'s message when it is refused.
    pub fn import(&self, archive: &Path) {
        let imported = self.ctr_command(&["images", "import"]).arg(archive).output().expect("ctr");
        assert!(imported.status.success(), "{}: {}", archive.display(), String::from_utf8_lossy(&imported.stderr));
    }

    /// What containerd and, through it, the shims have logged so far.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until a line of the log contains `text`, and answers that line.
    ///
    /// # Panics
    ///
    /// When there is none within [`PATIENCE`].
    pub fn wait_for_log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < deadline, "no {text:?} in the log");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The bundle of a container: its `config.json`, `rootfs` and the shim's own files.
    pub fn bundle(&self, container: &str) -> PathBuf {
        self.bundles().join(container)
    }

    /// What containers have left behind, one item a line (`mount /a/b`), once all of them were deleted: nothing,
    /// it should be. A shim may outlive its last container for a moment, so that this looks again, for
    /// [`PATIENCE`], as long as it finds something.
    pub fn leftovers(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.present();
            if found.is_empty() || Instant::now() > deadline {
                return found;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The same without waiting, so that a running container shows as what it has.
    pub fn present(&self) -> Vec<String> {
        let bundles = entries(&self.bundles());
        let cgroups = self.cgroups().into_iter().flat_map(|parent| entries(&parent)).filter(|path| path.is_dir());
        let mut found = Vec::new();
        found.extend(self.processes().into_iter().map(|pid| format!("process {pid} {}", arguments(pid).join(" "))));
        found.extend(self.mounts().into_iter().map(|path| format!("mount {}", path.display())));
        found.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        found.extend(self.dead_sockets().into_iter().map(|path| format!("socket {}", path.display())));
        found.extend(bundles.map(|path| format!("bundle {}", path.display())));
        found
    }

    /// Shims, which have containerd's address among their arguments, and what runs in the cgroups of containers.
    pub fn processes(&self) -> Vec<i32> {
        let address = self.address().display().to_string();
        let cgroup = format!("/{}/", self.namespace);
        let daemon = i32::try_from(self.daemon.id()).ok();
        let is_ours = |&pid: &i32| {
            Some(pid) != daemon
                && (arguments(pid).contains(&address)
                    || fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(&cgroup)))
        };
        entries(Path::new("/proc"))
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// Mount points below the folder, the last one mounted first.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount_points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut below: Vec<PathBuf> = mount_points.filter(|path| path.starts_with(self.folder())).collect();
        below.reverse();
        below
    }

    /// The cgroups, one a hierarchy, above those of the containers.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut unseen = vec![PathBuf::from(CGROUPS)];
        while let Some(folder) = unseen.pop() {
            for path in entries(&folder).filter(|path| path.is_dir() && !path.is_symlink()) {
                if path.ends_with(&self.namespace) { found.push(path) } else { unseen.push(path) }
            }
        }
        found
    }

    /// Sockets of shims that nobody is bound to any more. Their names are hashes: whose they were cannot be told,
    /// but they came after this containerd did.
    fn dead_sockets(&self) -> Vec<PathBuf> {
        let bound = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let is_bound = |socket: &Path| bound.lines().any(|line| line.ends_with(&*socket.to_string_lossy()));
        shim_sockets().difference(&self.foreign_sockets).filter(|socket| !is_bound(socket)).cloned().collect()
    }

    fn bundles(&self) -> PathBuf {
        self.folder().join("state/io.containerd.runtime.v2.task").join(&self.namespace)
    }

    fn wait_until_it_answers(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ctr(&["version"]).status.success() {
            if let Some(status) = self.daemon.try_wait().expect("the state of containerd") {
                panic!("containerd ended: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "containerd does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The daemon first: it would start another shim to clean up after one that was killed.
    fn end(&mut self) -> io::Result<()> {
        terminate(&mut self.daemon)?;
        self.kill_processes();
        for mount in self.mounts() {
            umount2(&mount, MntFlags::MNT_DETACH)?;
        }
        for cgroup in self.cgroups() {
            remove_cgroup(&cgroup)?;
        }
        for socket in self.dead_sockets() {
            // Another containerd may have taken the same one for its own.
            let _ = fs::remove_file(socket);
        }
        Ok(())
    }

    fn kill_processes(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let processes = self.processes();
            if processes.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in processes {
                // One that has ended since cannot be killed.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Err(error) = self.end() {
            eprintln!("containerd in {} left something behind: {error}", self.folder().display());
        }
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = {DISABLED_PLUGINS:?}

[grpc]
address = "{folder}/containerd.sock"

[ttrpc]
address = "{folder}/containerd.sock.ttrpc"

# Shims log what containerd logs.
[debug]
level = "debug"
"#
    )
}

fn terminate(daemon: &mut Child) -> io::Result<()> {
    let pid = i32::try_from(daemon.id()).map_err(io::Error::other)?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    let deadline = Instant::now() + PATIENCE;
    while daemon.try_wait()?.is_none() {
        if Instant::now() > deadline {
            daemon.kill()?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A cgroup is an empty folder to whoever removes it, its files notwithstanding; its children go first.
fn remove_cgroup(cgroup: &Path) -> io::Result<()> {
    entries(cgroup).filter(|path| path.is_dir()).try_for_each(|child| remove_cgroup(&child))?;
    fs::remove_dir(cgroup)
}

fn shim_sockets() -> BTreeSet<PathBuf> {
    entries(Path::new(SHIM_SOCKETS)).collect()
}

/// What a folder holds; nothing, if it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn arguments(pid: i32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
