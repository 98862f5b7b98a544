//! A real `redis-server`, in memory only; alone, with TLS, as a cluster, or watched by a sentinel.

mod certificates;
mod cluster;
mod watched;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, FromRedisValue, RedisResult, ToRedisArgs};
use tempfile::TempDir;

use crate::loopback::{free_port, started};

pub use certificates::Certificates;
pub use cluster::RedisCluster;
pub use watched::WatchedRedis;

/// A file of this name in a server's folder is its configuration.
const CONFIGURATION: &str = "redis.conf";
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A server on a loopback port of its own, ended when the value is dropped.
pub struct RedisServer {
    port: u16,
    tls_port: Option<u16>,
    /// Its file, for a sentinel, which keeps what it learns there.
    configuration: Option<PathBuf>,
    arguments: Vec<String>,
    process: Option<Child>,
    folder: TempDir,
}

impl RedisServer {
    /// # Panics
    /// `redis-server` is not installed or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// `arguments` are more of the server's own, such as `--requirepass secret`.
    ///
    /// # Panics
    /// `redis-server` is not installed or does not start.
    pub fn start_with(arguments: &[&str]) -> Self {
        Self::start_over(None, arguments)
    }

    /// Serves TLS as well, on a port of its own, to clients with a certificate of the same authority.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with_tls(certificates: &Certificates) -> Self {
        Self::start_over(Some(certificates), &[])
    }

    /// With certificates, servers and sentinels talk to one another by TLS too.
    fn start_over(certificates: Option<&Certificates>, arguments: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("temporary folder"), certificates, arguments)
    }

    fn start_in(folder: TempDir, certificates: Option<&Certificates>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let arguments = arguments.chain(certificates.into_iter().flat_map(Certificates::arguments)).collect();
        let configuration = Some(folder.path().join(CONFIGURATION)).filter(|file| file.exists());
        let mut server = Self { port: 0, tls_port: None, configuration, arguments, process: None, folder };
        // Between the choice of a port and the server's bind, somebody else may take it.
        for _ in 0..20 {
            server.port = free_port();
            server.tls_port = certificates.map(|_| free_port());
            if server.launch() {
                return server;
            }
        }
        panic!("redis-server ended at once, on every port that was free");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `127.0.0.1:port`, as Dapr's `redisHost` has it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same where it serves TLS.
    ///
    /// # Panics
    /// It does not.
    pub fn tls_host(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port.expect("a server with TLS"))
    }

    /// Where other servers and sentinels reach it.
    fn peer_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.host())
    }

    /// Ends the server; its data is gone.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts a stopped server again, empty, on the same port.
    ///
    /// # Panics
    /// Somebody else keeps the port.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + START_DEADLINE;
        while !self.launch() {
            assert!(Instant::now() < deadline, "port {} is taken", self.port);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends one raw command on a connection of its own.
    ///
    /// # Panics
    /// The server is down or answers with an error.
    pub fn command<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> T {
        self.ask(words).expect("answer")
    }

    /// As [`command`](Self::command), with the server's error or the lack of an answer.
    pub fn ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(word);
        });
        command.query(&mut self.connect()?)
    }

    /// A section of the server's `INFO`, or nothing where it does not answer.
    pub fn info(&self, section: &str) -> String {
        self.ask(&["INFO", section]).unwrap_or_default()
    }

    /// False where the port was taken.
    fn launch(&mut self) -> bool {
        let server = Command::new("redis-server")
            .args(&self.configuration)
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(self.tls_port.map_or(Vec::new(), |port| vec!["--tls-port".to_owned(), port.to_string()]))
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = started(server, START_DEADLINE, |server| self.is_answered_by(server.id()), String::new);
        self.process.is_some()
    }

    /// Whether it is this process that serves the port, and not one that took it first, and it has all its data.
    fn is_answered_by(&self, process: u32) -> bool {
        let information = |mut connection: Connection| redis::cmd("INFO").query(&mut connection);
        let answer: redis::RedisResult<String> = self.connect().and_then(information);
        match answer {
            Ok(information) => {
                let says = |fact: &str| information.lines().any(|line| line == fact);
                says(&format!("process_id:{process}")) && !says("loading:1")
            }
            // It wants a password: its own answer too.
            Err(error) => error.code() == Some("NOAUTH"),
        }
    }

    fn connect(&self) -> RedisResult<Connection> {
        Client::open(self.url())?.get_connection_with_timeout(Duration::from_secs(1))
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Asks until the answer is yes.
///
/// # Panics
/// It is not within half a minute.
fn until(what: &str, question: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !question() {
        assert!(Instant::now() < deadline, "{what}: not within half a minute");
        thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn a_server_answers_and_is_gone_when_dropped() {
        let server = RedisServer::start();
        let port = server.port();
        assert_eq!(server.command::<String>(&["PING"]), "PONG");
        drop(server);
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn a_restarted_server_keeps_its_port_and_forgets_its_data() {
        let mut server = RedisServer::start();
        let port = server.port();
        server.command::<()>(&["SET", "key", "value"]);
        server.stop();
        assert!(server.connect().is_err());
        server.restart();
        assert_eq!(server.port(), port);
        assert_eq!(server.command::<Option<String>>(&["GET", "key"]), None);
    }

    #[test]
    fn servers_do_not_share_a_port() {
        let (one, other) = (RedisServer::start(), RedisServer::start());
        assert_ne!(one.port(), other.port());
        one.command::<()>(&["SET", "key", "one"]);
        assert_eq!(other.command::<Option<String>>(&["GET", "key"]), None);
    }
}
