//! A master, its replica, and the sentinel that makes the one the other.

use std::fs;

use tempfile::TempDir;

use super::{CONFIGURATION, Certificates, RedisServer, until};

/// What the sentinel calls the master.
const NAME: &str = "it";

pub struct WatchedRedis {
    /// The first one is the master in the beginning.
    pub servers: [RedisServer; 2],
    pub sentinel: RedisServer,
}

impl WatchedRedis {
    /// # Panics
    /// `redis-server` is not installed or does not start, or the sentinel does not find the replica.
    pub fn start() -> Self {
        Self::start_over(None)
    }

    /// All three serve TLS as well, and use it among themselves.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with_tls(certificates: &Certificates) -> Self {
        Self::start_over(Some(certificates))
    }

    fn start_over(certificates: Option<&Certificates>) -> Self {
        let master = RedisServer::start_over(certificates, &[]);
        let port = master.peer_port().to_string();
        let replica = RedisServer::start_over(certificates, &["--replicaof", "127.0.0.1", &port]);
        until("the replica follows", || replica.info("replication").contains("master_link_status:up"));
        let watched = Self { sentinel: sentinel(&master, certificates), servers: [master, replica] };
        until("the sentinel finds the replica", || watched.sentinel.info("sentinel").contains("slaves=1"));
        watched
    }

    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The number of the server that the sentinel takes for the master.
    ///
    /// # Panics
    /// There is none.
    pub fn master(&self) -> usize {
        let (_, port): (String, u16) = self.sentinel.command(&["SENTINEL", "get-master-addr-by-name", NAME]);
        self.servers.iter().position(|server| server.peer_port() == port).expect("one of the two")
    }

    /// Has the sentinel make the master a replica and the replica a master.
    ///
    /// # Panics
    /// That does not happen.
    pub fn swap(&self) {
        let former = self.master();
        // It refuses as long as it has not heard enough of the replica.
        until("the sentinel agrees", || self.sentinel.ask::<()>(&["SENTINEL", "FAILOVER", NAME]).is_ok());
        self.await_other_master(former);
        until("the former master follows", || self.servers[former].info("replication").contains("role:slave"));
    }

    /// Until the other server is the master, by its own word too.
    ///
    /// # Panics
    /// That does not happen.
    pub fn await_other_master(&self, former: usize) {
        until("another master", || {
            let master = self.master();
            master != former && self.servers[master].info("replication").contains("role:master")
        });
    }
}

fn sentinel(master: &RedisServer, certificates: Option<&Certificates>) -> RedisServer {
    let folder = TempDir::new().expect("temporary folder");
    let port = master.peer_port();
    let configuration = format!(
        "sentinel monitor {NAME} 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds {NAME} 500\n\
         sentinel failover-timeout {NAME} 2000\n"
    );
    fs::write(folder.path().join(CONFIGURATION), configuration).expect("configuration of the sentinel");
    RedisServer::start_in(folder, certificates, &["--sentinel"])
}
