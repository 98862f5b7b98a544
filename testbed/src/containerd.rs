//! A containerd of one's own.

mod configuration;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, process};

use images::Image;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::network::Network;
use crate::pause::pause_image;

/// Where shims put their sockets, whichever containerd they belong to.
const SHIM_SOCKETS: &str = "/run/containerd/s";
const CGROUPS: &str = "/sys/fs/cgroup";
/// How long to wait for what comes at once on an idle machine. Long, for a busy or an emulated one: it costs nothing
/// where all goes well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder to take `containerd`, `ctr` and containerd's own shims from, before those of `PATH`.
const CONTAINERD_FOLDER: &str = "CONTAINERD_FOLDER";
/// The namespace of everything that is made through CRI.
const KUBERNETES: &str = "k8s.io";

/// A running containerd with root, state and sockets in a temporary folder, and a cgroup that no other has for its
/// containers, by which everything made for them can be told apart. Its program is the installed one, or that of the
/// folder which the environment variable `CONTAINERD_FOLDER` names.
///
/// Dropped, it takes all of that with it: tasks and shims that still run, mounts, cgroups, sockets and the folder.
pub struct Containerd {
    daemon: Mutex<Child>,
    environment: Vec<(String, String)>,
    network: Option<Network>,
    folder: TempDir,
    namespace: String,
    /// The name of the cgroup above those of the containers.
    cgroup: String,
    path: OsString,
    /// Sockets that were there before.
    foreign_sockets: BTreeSet<PathBuf>,
}

impl Containerd {
    /// Starts the daemon and waits until it answers. `programs` are folders to look in for shims, before all others.
    ///
    /// # Panics
    ///
    /// Without root or an installed containerd, and when it does not answer within [`PATIENCE`]; its log is shown.
    pub fn start(programs: &[&Path]) -> Self {
        Self::start_with_environment(programs, &[])
    }

    /// The same, with more variables in the environment of containerd and so of its shims.
    pub fn start_with_environment(programs: &[&Path], environment: &[(&str, &str)]) -> Self {
        let folder = temporary_folder();
        let text = configuration::for_ctr(folder.path());
        Self::launch(programs, environment, folder, None, &text)
    }

    /// The same with containerd's default log, for whoever measures: a debug log costs time.
    pub fn start_as_installed(programs: &[&Path]) -> Self {
        let folder = temporary_folder();
        let text = configuration::as_installed(folder.path());
        Self::launch(programs, &[], folder, None, &text)
    }

    /// A containerd for pods, in a network of its own: with the CRI plugin, a bridge for the pods, the image
    /// [`PAUSE_IMAGE`], and the runtimes `runc` (the default) and `dapr`. It is for one namespace, Kubernetes' own.
    ///
    /// # Panics
    ///
    /// As [`Containerd::start`], and without the packages that `make deps` installs.
    pub fn start_for_pods(programs: &[&Path]) -> Self {
        Self::start_for_pods_with(programs, configuration::newest_format(&search_path(programs)))
    }

    /// The same, with the configuration written in another of containerd's formats, 2 or 3.
    pub fn start_for_pods_with(programs: &[&Path], format: u32) -> Self {
        let folder = temporary_folder();
        let network = Network::create(&folder.path().join("network")).expect("a network of its own");
        configuration::write_cni(folder.path()).expect("the configuration of the pods' network");
        let text = configuration::for_pods(folder.path(), format);
        let containerd = Self::launch(programs, &[], folder, Some(network), &text);
        containerd.import_image(&pause_image(containerd.folder()));
        containerd
    }

    fn launch(
        programs: &[&Path],
        environment: &[(&str, &str)],
        folder: TempDir,
        network: Option<Network>,
        configuration: &str,
    ) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);

        fs::write(folder.path().join("config.toml"), configuration).expect("containerd's configuration");
        let path = search_path(programs);
        let environment: Vec<_> =
            environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let daemon = Mutex::new(spawn(folder.path(), network.as_ref(), &path, &environment));
        let cgroup = format!("testbed-{}-{}", process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let namespace = if network.is_some() { KUBERNETES.to_owned() } else { cgroup.clone() };
        let foreign_sockets = shim_sockets();
        let containerd = Self { daemon, environment, network, folder, namespace, cgroup, path, foreign_sockets };
        containerd.wait_until_it_answers();
        containerd
    }

    /// Ends the daemon; containers and their shims go on.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn stop(&self) {
        terminate(&mut self.daemon()).expect("the daemon ends");
    }

    /// Starts the daemon again after [`stop`](Self::stop), and waits until it answers.
    ///
    /// # Panics
    ///
    /// As [`Containerd::start`].
    pub fn start_again(&self) {
        *self.daemon() = spawn(self.folder.path(), self.network.as_ref(), &self.path, &self.environment);
        self.wait_until_it_answers();
    }

    fn daemon(&self) -> MutexGuard<'_, Child> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of everything below, removed with this value. Free for a test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the cgroup to put containers in. `ctr` does by itself; whoever talks CRI must say it.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The network of a containerd for pods.
    ///
    /// # Panics
    ///
    /// When this is none.
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("a containerd that was started for pods")
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

    /// Packs an image and imports it.
    ///
    /// # Panics
    ///
    /// With `ctr`'s message when it is refused.
    pub fn import_image(&self, image: &Image) {
        let archive = tempfile::NamedTempFile::new_in(self.folder()).expect("a file for an archive");
        image.write_archive(archive.as_file()).expect("an image");
        self.import(archive.path());
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
        let folders = self.container_folders().into_iter().flat_map(|parent| entries(&parent));
        let cgroups = self.cgroups().into_iter().flat_map(|parent| entries(&parent)).filter(|path| path.is_dir());
        let mut found = Vec::new();
        found.extend(self.processes().into_iter().map(|pid| format!("process {pid} {}", arguments(pid).join(" "))));
        found.extend(self.mounts().into_iter().map(|path| format!("mount {}", path.display())));
        found.extend(cgroups.map(|path| format!("cgroup {}", path.display())));
        found.extend(self.dead_sockets().into_iter().map(|path| format!("socket {}", path.display())));
        found.extend(folders.map(|path| format!("folder {}", path.display())));
        let interfaces = self.network.iter().flat_map(Network::pod_interfaces);
        found.extend(interfaces.map(|name| format!("network interface {name}")));
        found.extend(self.leases().into_iter().map(|address| format!("address {address}")));
        found
    }

    /// Shims, which have containerd's address among their arguments, what runs in the cgroups of containers, and who has files
    /// of the folder open, as guest hosts have a log.
    pub fn processes(&self) -> Vec<i32> {
        let address = self.address().display().to_string();
        let cgroup = format!("/{}/", self.cgroup);
        let others = [self.daemon().id(), process::id()].map(u32::cast_signed);
        let has_its_files = |pid: &i32| {
            let mut files = entries(Path::new(&format!("/proc/{pid}/fd"))).filter_map(|file| fs::read_link(file).ok());
            files.any(|file| file.starts_with(self.folder()))
        };
        let is_ours = |pid: &i32| {
            !others.contains(pid)
                && (arguments(*pid).contains(&address)
                    || fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(&cgroup))
                    || has_its_files(pid))
        };
        entries(Path::new("/proc"))
            .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
            .filter(is_ours)
            .collect()
    }

    /// Mount points below the folder, the last one mounted first, but for the one that holds the network.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        let mount_points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        let mut below: Vec<PathBuf> = mount_points
            .filter(|path| path.starts_with(self.folder()) && *path != self.folder().join("network"))
            .collect();
        below.reverse();
        below
    }

    /// The cgroups, one a hierarchy, above those of the containers.
    fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut unseen = vec![PathBuf::from(CGROUPS)];
        while let Some(folder) = unseen.pop() {
            for path in entries(&folder).filter(|path| path.is_dir() && !path.is_symlink()) {
                if path.ends_with(&self.cgroup) { found.push(path) } else { unseen.push(path) }
            }
        }
        found
    }

    /// Sockets of shims that nobody listens to any more. Their names are hashes: whose they were cannot be told,
    /// but they came after this containerd did.
    fn dead_sockets(&self) -> Vec<PathBuf> {
        // The system's list shows those of one network only.
        let is_dead = |socket: &PathBuf| UnixStream::connect(socket).is_err();
        shim_sockets().difference(&self.foreign_sockets).filter(|socket| is_dead(socket)).cloned().collect()
    }

    fn bundles(&self) -> PathBuf {
        self.folder().join("state/io.containerd.runtime.v2.task").join(&self.namespace)
    }

    /// Folders that hold one for each container or pod.
    fn container_folders(&self) -> [PathBuf; 7] {
        let work = format!("root/io.containerd.runtime.v2.task/{}", self.namespace);
        let (root, state) = ("root/io.containerd.grpc.v1.cri", "state/io.containerd.grpc.v1.cri");
        let of_pods =
            [(root, "sandboxes"), (root, "containers"), (state, "sandboxes"), (state, "containers"), (state, "netns")];
        let [a, b, c, d, e] = of_pods.map(|(plugin, kind)| self.folder().join(plugin).join(kind));
        [self.bundles(), self.folder().join(work), a, b, c, d, e]
    }

    /// The addresses that pods have.
    fn leases(&self) -> Vec<Ipv4Addr> {
        let names = entries(&self.folder().join(configuration::LEASES));
        names.filter_map(|path| path.file_name()?.to_str()?.parse().ok()).collect()
    }

    fn wait_until_it_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ctr(&["version"]).status.success() {
            if let Some(status) = self.daemon().try_wait().expect("the state of containerd") {
                panic!("containerd ended: {status}\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "containerd does not answer:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The daemon first: it would start another shim to clean up after one that was killed.
    fn end(&self) -> io::Result<()> {
        terminate(&mut self.daemon())?;
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

fn temporary_folder() -> TempDir {
    tempfile::Builder::new().prefix("containerd-").tempdir().expect("a temporary folder")
}

/// Where programs are looked for.
fn search_path(programs: &[&Path]) -> OsString {
    let mut folders: Vec<PathBuf> = programs.iter().map(PathBuf::from).collect();
    folders.extend(env::var_os(CONTAINERD_FOLDER).map(PathBuf::from));
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    env::join_paths(folders).expect("folders without a colon in their names")
}

fn spawn(folder: &Path, network: Option<&Network>, path: &OsStr, environment: &[(String, String)]) -> Child {
    let log = File::options().create(true).append(true).open(folder.join("log")).expect("containerd's log");
    let mut command = network.map_or_else(|| Command::new("containerd"), |network| network.command("containerd"));
    command
        .arg("--config")
        .arg(folder.join("config.toml"))
        .env("PATH", path)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second descriptor of the log"))
        .stderr(log)
        .spawn()
        .expect("containerd, from the Debian package of this name")
}

fn terminate(daemon: &mut Child) -> io::Result<()> {
    let pid = i32::try_from(daemon.id()).map_err(io::Error::other)?;
    if daemon.try_wait()?.is_none() {
        kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    }
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
