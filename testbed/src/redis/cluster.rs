//! A cluster of real servers.

use super::{Certificates, RedisServer, free_port, until};

const SLOTS: usize = 16384;
const MASTERS: usize = 3;

/// Three masters, each with a third of the slots, and replicas of the first one.
pub struct RedisCluster {
    pub servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// # Panics
    /// `redis-server` is not installed or does not start, or the servers do not come together.
    pub fn start(replicas: usize) -> Self {
        Self::start_over(None, replicas)
    }

    /// Its servers serve TLS as well, and use it among themselves.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn start_with_tls(certificates: &Certificates, replicas: usize) -> Self {
        Self::start_over(Some(certificates), replicas)
    }

    fn start_over(certificates: Option<&Certificates>, replicas: usize) -> Self {
        let servers: Vec<RedisServer> = (0..MASTERS + replicas).map(|_| member(certificates)).collect();
        let cluster = Self { servers };
        for (number, server) in cluster.servers.iter().enumerate() {
            server.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
            if number < MASTERS {
                let (first, last) = (SLOTS * number / MASTERS, SLOTS * (number + 1) / MASTERS - 1);
                server.command::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            }
            cluster.servers[0].meet(server);
        }
        let size = format!("cluster_known_nodes:{}", cluster.servers.len());
        until("the servers come together", || {
            cluster.servers.iter().all(|server| server.cluster_info().contains(&size))
        });
        let master: String = cluster.servers[0].command(&["CLUSTER", "MYID"]);
        for replica in &cluster.servers[MASTERS..] {
            replica.command::<()>(&["CLUSTER", "REPLICATE", &master]);
        }
        cluster.await_health();
        cluster
    }

    /// The addresses of all servers, as Dapr's `redisHost` has them.
    pub fn hosts(&self) -> String {
        let hosts: Vec<String> = self.servers.iter().map(RedisServer::host).collect();
        hosts.join(",")
    }

    /// Until every running server says that all slots are served, and every replica follows its master.
    ///
    /// # Panics
    /// That does not happen.
    pub fn await_health(&self) {
        let running = || self.servers.iter().filter(|server| server.process.is_some());
        until("the cluster is healthy", || {
            running().all(|server| {
                let info = server.info("replication");
                server.cluster_info().contains("cluster_state:ok")
                    && (info.contains("role:master") || info.contains("master_link_status:up"))
            })
        });
    }

    /// Until this server is a master, and the others know it.
    ///
    /// # Panics
    /// That does not happen.
    pub fn await_master(&self, number: usize) {
        until("a new master", || self.servers[number].info("replication").contains("role:master"));
        self.await_health();
    }

    /// The number of the server that is the master of `key`.
    ///
    /// # Panics
    /// There is none.
    pub fn master_of(&self, key: &str) -> usize {
        let serves = |server: &RedisServer| server.ask::<i64>(&["EXISTS", key]).is_ok();
        self.servers.iter().position(serves).expect("a master of the key")
    }
}

impl RedisServer {
    fn meet(&self, other: &Self) {
        let [_, bus]: [String; 2] = other.command(&["CONFIG", "GET", "cluster-port"]);
        self.command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.peer_port().to_string(), &bus]);
    }

    fn cluster_info(&self) -> String {
        self.ask(&["CLUSTER", "INFO"]).unwrap_or_default()
    }
}

fn member(certificates: Option<&Certificates>) -> RedisServer {
    // The usual one, 10000 more than the port, may be none.
    let bus = free_port().to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
    RedisServer::start_over(certificates, &arguments)
}
