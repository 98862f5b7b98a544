//! Which server a key's commands go to: the only one, the master that the sentinels name, or the master of the key's
//! slot in a cluster.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, FutureExt as _, select_ok};
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};

use super::address::Address;
use super::dialler::Dialler;
use super::node::{Lane, Node};
use super::options::{Discovery, Options};
use super::renewable::{Made, Renewable};

const SLOTS: u16 = 16384;

/// The servers as they were found, and what was learned of them since.
pub(super) struct Map {
    /// First slot, last slot, master. A server that is no cluster's has all the slots.
    ranges: Vec<(u16, u16, Arc<Node>)>,
    /// Slots whose former master named another one.
    moved: Mutex<HashMap<u16, Arc<Node>>>,
}

impl Map {
    fn new(ranges: Vec<(u16, u16, Arc<Node>)>) -> Arc<Self> {
        Arc::new(Self { ranges, moved: Mutex::default() })
    }

    fn of_one(node: Arc<Node>) -> Arc<Self> {
        Self::new(vec![(0, SLOTS - 1, node)])
    }

    /// None for a slot that no server of the cluster has.
    pub(super) fn master(&self, slot: u16) -> Option<Arc<Node>> {
        let in_range = || self.ranges.iter().find(|(first, last, _)| (first..=last).contains(&&slot));
        lock(&self.moved).get(&slot).or_else(|| in_range().map(|(_, _, node)| node)).cloned()
    }

    pub(super) fn moved(&self, slot: u16, master: Arc<Node>) {
        lock(&self.moved).insert(slot, master);
    }
}

/// Finds the servers when they are first needed, and again when the map turns out to be wrong.
pub(super) struct Topology {
    discovery: Discovery,
    dialler: Arc<Dialler>,
    sentinels: Vec<Node>,
    /// All that commands were or could be sent to, so that a new map keeps the connections of an old one.
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    seeds: Vec<Address>,
    map: Renewable<Arc<Map>>,
}

impl Topology {
    /// Does not connect.
    pub(super) fn new(options: &Options) -> Self {
        let dialler = Arc::new(options.dialler.clone());
        let sentinels = match &options.discovery {
            Discovery::Sentinels { login, .. } => {
                let dialler = Arc::new(Dialler { login: login.clone(), ..options.dialler.clone() });
                options.addresses.iter().map(|address| Node::new(address.clone(), &dialler)).collect()
            }
            Discovery::None | Discovery::Cluster => Vec::new(),
        };
        Self {
            discovery: options.discovery.clone(),
            dialler,
            sentinels,
            nodes: Mutex::default(),
            seeds: options.addresses.clone(),
            map: Renewable::default(),
        }
    }

    pub(super) async fn map(&self) -> RedisResult<Made<Arc<Map>>> {
        self.map.get(|| self.discover()).await
    }

    /// If the servers were found.
    pub(super) fn known_map(&self) -> Option<Made<Arc<Map>>> {
        self.map.made()
    }

    /// Has the servers found anew, unless somebody saw to that already.
    pub(super) fn discard(&self, stale: &Made<Arc<Map>>) {
        self.map.discard(stale);
    }

    pub(super) fn discard_any(&self) {
        self.map.discard_any();
    }

    pub(super) fn node(&self, address: Address) -> Arc<Node> {
        let new = || Arc::new(Node::new(address.clone(), &self.dialler));
        Arc::clone(lock(&self.nodes).entry(address.clone()).or_insert_with(new))
    }

    async fn discover(&self) -> RedisResult<Arc<Map>> {
        let map = match &self.discovery {
            Discovery::None => Map::of_one(self.node(self.seeds[0].clone())),
            Discovery::Sentinels { master, .. } => Map::of_one(self.master_by_name(master).await?),
            Discovery::Cluster => Map::new(self.masters_of_slots().await?),
        };
        // Servers that went away are not kept, nor asked.
        lock(&self.nodes).retain(|_, node| map.ranges.iter().any(|(_, _, known)| Arc::ptr_eq(known, node)));
        Ok(map)
    }

    /// Sentinels differ for a while after a failure: only who is a master is taken.
    async fn master_by_name(&self, name: &str) -> RedisResult<Arc<Node>> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(name);
        let answers = self.sentinels.iter().map(|sentinel| {
            let question = &question;
            async move {
                let address: Option<(String, u16)> = ask(sentinel, question).await?;
                address.ok_or_else(|| no_master("the sentinel knows no master of this name"))
            }
            .boxed()
        });
        let (host, port) = first(answers.collect()).await?;
        let master = self.node(Address { host, port });
        match ask::<Vec<Value>>(&master, &redis::cmd("ROLE")).await {
            Ok(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(master),
            Ok(_) => Err(no_master("the server that the sentinels name is no master")),
            // Its users may be forbidden to ask.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) => Ok(master),
            Err(error) => Err(error),
        }
    }

    async fn masters_of_slots(&self) -> RedisResult<Vec<(u16, u16, Arc<Node>)>> {
        let mut asked: Vec<Arc<Node>> = self.seeds.iter().map(|seed| self.node(seed.clone())).collect();
        asked.extend(lock(&self.nodes).values().filter(|node| !self.seeds.contains(&node.address)).cloned());
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let answers = asked.iter().map(|node| {
            let question = &question;
            async move {
                let slots: Vec<Value> = ask(node, question).await?;
                slots.into_iter().map(|range| range_of(range, &node.address)).collect::<RedisResult<Vec<_>>>()
            }
            .boxed()
        });
        let ranges = first(answers.collect()).await?;
        Ok(ranges.into_iter().map(|(first, last, master)| (first, last, self.node(master))).collect())
    }
}

/// All are asked at once: one that keeps silent holds up nobody.
async fn first<T>(answers: Vec<BoxFuture<'_, RedisResult<T>>>) -> RedisResult<T> {
    select_ok(answers).await.map(|(answer, _)| answer)
}

async fn ask<T: FromRedisValue>(node: &Node, question: &Cmd) -> RedisResult<T> {
    let answer = node.send(Lane::Usual, question, false).await.map_err(|failure| failure.error)?;
    Ok(redis::from_redis_value(answer)?)
}

/// An item of the answer to `CLUSTER SLOTS`: first slot, last slot, the master (host, port, …), the replicas.
fn range_of(range: Value, asked: &Address) -> RedisResult<(u16, u16, Address)> {
    let mut fields = redis::from_redis_value::<Vec<Value>>(range)?.into_iter();
    let (Some(first), Some(last), Some(master)) = (fields.next(), fields.next(), fields.next()) else {
        return Err((ErrorKind::UnexpectedReturnType, "CLUSTER SLOTS answered no ranges").into());
    };
    let mut master = redis::from_redis_value::<Vec<Value>>(master)?.into_iter();
    let host: Option<String> = redis::from_redis_value(master.next().unwrap_or_default())?;
    let port = redis::from_redis_value(master.next().unwrap_or_default())?;
    let master = Address { host: asked.host.clone(), port }.named(host.as_deref());
    Ok((redis::from_redis_value(first)?, redis::from_redis_value(last)?, master))
}

fn no_master(why: &'static str) -> RedisError {
    (ErrorKind::MasterNameNotFoundBySentinel, why).into()
}

/// Where a cluster keeps `key`: the hash of it, or of what its first pair of braces holds.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16::State::<crc16::XMODEM>::calculate(hashed.as_bytes()) % SLOTS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // What CLUSTER KEYSLOT of Redis 7.0 answers.
    #[test]
    fn slots_are_those_of_redis() {
        let slots =
            [("", 0), ("foo", 12182), ("myapp||z", 3770), ("a{foo}b{bar}", 12182), ("{}foo", 9500), ("{foo", 13308)];
        for (key, slot) in slots {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }
}
