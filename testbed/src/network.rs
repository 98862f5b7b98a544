//! A network of one's own: what runs in it sees only its own interfaces and listens on its own ports.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, kept by a mount, and gone with this value and with whatever runs in it.
pub struct Network {
    file: PathBuf,
}

impl Network {
    /// Creates one with nothing but a loopback interface. `file`, which must not exist yet, stands for it.
    pub fn create(file: &Path) -> io::Result<Self> {
        File::create_new(file)?;
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)?;
                mount(Some("/proc/thread-self/ns/net"), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            });
            made.join().expect("a thread that cannot panic")
        })?;
        let network = Self { file: file.to_owned() };
        let loopback = network.command("ip").args(["link", "set", "lo", "up"]).output()?;
        if !loopback.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&loopback.stderr).into_owned()));
        }
        Ok(network)
    }

    /// A command to be run in this network. Its process is the program's own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file.display())).arg("--").arg(program);
        command
    }

    /// Does something in this network, in a thread: sockets made there stay in it, wherever they are used.
    ///
    /// # Panics
    ///
    /// When `work` does.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || setns(File::open(&self.file).expect("the network's file"), CloneFlags::CLONE_NEWNET);
        thread::scope(|scope| {
            let done = scope.spawn(|| {
                enter().expect("a network to enter");
                work()
            });
            done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The interfaces that lead to pods.
    pub(crate) fn pod_interfaces(&self) -> Vec<String> {
        let names = self.within(|| fs::read_to_string("/proc/thread-self/net/dev").expect("the list of interfaces"));
        let names = names.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
        names.filter(|name| name.starts_with("veth")).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = umount2(&self.file, MntFlags::MNT_DETACH) {
            eprintln!("cannot give up the network {}: {error}", self.file.display());
        }
    }
}
