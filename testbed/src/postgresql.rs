//! A real PostgreSQL server with a cluster of its own.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::loopback::{free_port, started};

/// The user who may do anything, and her password, where [`Setup::access`] asks for one.
pub const USER: &str = "dapr";
pub const PASSWORD: &str = "hunter2";
/// The database that is there.
pub const DATABASE: &str = "postgres";

const START_DEADLINE: Duration = Duration::from_secs(60);
/// Where Debian has the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to run as root: `nobody` and `nogroup`.
const UNPRIVILEGED: u32 = 65534;

/// How a server differs from one that lets everybody in, without TLS.
#[derive(Default)]
pub struct Setup<'a> {
    /// Settings such as `max_connections` and their values.
    pub settings: &'a [(&'a str, &'a str)],
    /// The lines of `pg_hba.conf`.
    pub access: Option<&'a str>,
    /// Certificate and key for TLS, in PEM.
    pub certificate: Option<(&'a str, &'a str)>,
    /// Whose certificates clients may come with, in PEM.
    pub client_authority: Option<&'a str>,
}

/// A server on a loopback port of its own, ended when the value is dropped.
pub struct PostgresqlServer {
    port: u16,
    process: Option<Child>,
    prefixes: AtomicUsize,
    folder: TempDir,
}

impl PostgresqlServer {
    /// # Panics
    /// PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// A server that lets everybody in, the same one as for all others of this process who ask at the time.
    ///
    /// # Panics
    /// PostgreSQL is not installed or does not start.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PostgresqlServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start());
            *shared = Arc::downgrade(&server);
            server
        })
    }

    /// # Panics
    /// PostgreSQL is not installed or does not start.
    pub fn start_with(setup: &Setup<'_>) -> Self {
        let folder = TempDir::new().expect("temporary folder");
        give_away(folder.path());
        let mut server = Self { port: 0, process: None, prefixes: AtomicUsize::new(0), folder };
        server.create_cluster();
        server.configure(setup);
        // Between the choice of a port and the server's bind, somebody else may take it.
        for _ in 0..20 {
            server.port = free_port();
            if server.launch() {
                return server;
            }
        }
        panic!("postgres ended at once, on every port that was free: {}", server.log());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As Dapr's `connectionString` has it, without a password.
    pub fn connection_string(&self) -> String {
        format!("host=127.0.0.1 port={} user={USER} dbname={DATABASE}", self.port)
    }

    /// What the names of tables may begin with, where nobody else's do.
    pub fn unused_prefix(&self) -> String {
        format!("test{}_", self.prefixes.fetch_add(1, Ordering::Relaxed))
    }

    /// The folder of its Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server, and every connection to it; its data stays.
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Starts a stopped server again, on the same port.
    ///
    /// # Panics
    /// Somebody else keeps the port.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + START_DEADLINE;
        while !self.launch() {
            assert!(Instant::now() < deadline, "port {} is taken: {}", self.port, self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the server has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn create_cluster(&self) {
        let password = self.folder.path().join("password");
        write_private(&password, PASSWORD);
        let output = self
            .program("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username", USER, "--pwfile"])
            .args([&password, Path::new("--pgdata"), &self.data()])
            .output();
        let Output { status, stderr, .. } = output.expect("initdb is installed");
        assert!(status.success(), "initdb: {}", String::from_utf8_lossy(&stderr));
    }

    fn configure(&self, setup: &Setup<'_>) {
        let mut settings = format!(
            "fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\nlisten_addresses = '127.0.0.1'\n\
             unix_socket_directories = '{}'\n",
            self.folder.path().display()
        );
        for (name, value) in setup.settings {
            settings += &format!("{name} = '{value}'\n");
        }
        if let Some((certificate, key)) = setup.certificate {
            settings += "ssl = on\n";
            write_private(&self.data().join("server.crt"), certificate);
            write_private(&self.data().join("server.key"), key);
        }
        if let Some(authority) = setup.client_authority {
            settings += "ssl_ca_file = 'clients.crt'\n";
            write_private(&self.data().join("clients.crt"), authority);
        }
        let configuration = OpenOptions::new().append(true).open(self.data().join("postgresql.conf"));
        configuration.and_then(|mut file| file.write_all(settings.as_bytes())).expect("configuration");
        if let Some(access) = setup.access {
            fs::write(self.data().join("pg_hba.conf"), access).expect("access rules");
        }
    }

    /// False where the port was taken.
    fn launch(&mut self) -> bool {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("log");
        let server = self
            .program("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string()])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres is installed");
        self.process = started(server, START_DEADLINE, |server| self.is_ready(server.id()), || self.log());
        self.process.is_some()
    }

    /// The server says so itself, in the lines of a file of its own: the process is the first, the state the eighth.
    fn is_ready(&self, process: u32) -> bool {
        let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = state.lines().map(str::trim).collect();
        lines.first() == Some(&process.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(programs().expect("PostgreSQL is installed").join(name));
        command.current_dir(self.folder.path()).env_clear().env("LC_ALL", "C").stdin(Stdio::null());
        if is_root() {
            command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        }
        command
    }

    fn end(&mut self, how: Signal) {
        if let Some(mut process) = self.process.take() {
            let pid = i32::try_from(process.id()).expect("a process id");
            let _ = signal::kill(Pid::from_raw(pid), how);
            let _ = process.wait();
        }
    }
}

impl Drop for PostgresqlServer {
    fn drop(&mut self) {
        // At once; the children go, too.
        self.end(Signal::SIGQUIT);
    }
}

/// The folder of the newest version that is installed.
pub fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let numbered = versions.filter_map(|version| Some((version.file_name().to_str()?.parse::<u32>().ok()?, version)));
    let programs = numbered.map(|(number, version)| (number, version.path().join("bin")));
    let installed = programs.filter(|(_, folder)| folder.join("postgres").exists());
    installed.max().map(|(_, folder)| folder)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0)
}

/// Has a folder belong to the user that servers run as.
///
/// # Panics
/// That cannot be.
pub fn give_away(path: &Path) {
    if is_root() {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("a folder for the server");
    }
}

fn write_private(path: &Path, text: &str) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect("a file for the server");
    give_away(path);
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_server_answers_and_is_gone_when_dropped() {
        let server = PostgresqlServer::start();
        let (port, folder) = (server.port(), server.socket_folder().to_owned());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        drop(server);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && !folder.exists());
    }

    #[test]
    fn a_restarted_server_keeps_its_port() {
        let mut server = PostgresqlServer::start();
        let port = server.port();
        server.stop();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        server.restart();
        assert_eq!(server.port(), port);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn those_who_share_a_server_keep_it_until_the_last_is_gone() {
        let (one, other) = (PostgresqlServer::shared(), PostgresqlServer::shared());
        assert_eq!(one.port(), other.port());
        drop(one);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, other.port())).is_ok());
    }
}
