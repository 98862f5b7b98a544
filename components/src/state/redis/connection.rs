//! The way of a command to the right server and of its answer back, whatever happens to the servers meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::time;

use super::address::Address;
pub(super) use super::node::Failure;
use super::node::{Lane, Node};
use super::options::{Options, Retries};
use super::renewable::Made;
use super::topology::{Map, Topology, slot_of};

/// How often a command follows a server of a cluster that names another one.
const MOST_REDIRECTIONS: u32 = 5;

/// What becomes of a command whose answer did not arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resend {
    /// Sending it twice does no harm.
    Safe,
    /// It may have had its effect, and would be refused, wrongly, when sent again.
    Unsafe,
}

/// Of what a command needs beside its words.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    /// All keys of a command lie where the first one does.
    pub(super) key: &'a str,
    pub(super) lane: Lane,
    pub(super) resend: Resend,
}

/// All servers of a store.
pub(super) struct Connection {
    topology: Topology,
    retries: Retries,
    /// How long a call may take with all its attempts; none where an answer may take for ever.
    patience: Option<Duration>,
}

impl Connection {
    /// Does not connect.
    pub(super) fn new(options: &Options) -> Self {
        let dialler = &options.dialler;
        Self {
            topology: Topology::new(options),
            retries: options.retries,
            patience: dialler.response_timeout.map(|timeout| timeout.max(dialler.timeout)),
        }
    }

    /// Sends `command`, again if it certainly had no effect, or if it may have had one and [`Resend::Safe`] says that
    /// this does no harm. One that must not be sent twice goes out on a connection that was seen alive just before.
    pub(super) async fn query(&self, command: &Cmd, route: Route<'_>) -> Result<Value, Failure> {
        let began = Instant::now();
        let first = match self.attempt_at_once(command, route).await {
            Some(Ok(answer)) => return Ok(answer),
            Some(Err(failure)) => Some(failure),
            None => None,
        };
        let sent = AtomicBool::new(first.is_some());
        let work = self.persist(command, route, first, &sent);
        let Some(patience) = self.patience else { return work.await };
        let left = (patience + route.lane.blocked()).saturating_sub(began.elapsed());
        match time::timeout(left, work).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whoever keeps silent may have been replaced.
                self.topology.discard_any();
                let error = io::Error::from(io::ErrorKind::TimedOut).into();
                Err(Failure { error, in_doubt: sent.into_inner(), asks: None })
            }
        }
    }

    /// The first attempt where nothing stands before it, which is as good as always. It needs no time-out but the
    /// connection's own.
    async fn attempt_at_once(&self, command: &Cmd, route: Route<'_>) -> Option<Result<Value, Failure>> {
        let map = self.topology.known_map()?;
        let slot = slot_of(route.key);
        let node = map.value.master(slot)?;
        let is_ready = node.is_connected(route.lane) && (route.resend == Resend::Safe || node.is_fresh(route.lane));
        if !is_ready {
            return None;
        }
        let mut answer = node.send(route.lane, command, false).await;
        if let Err(failure) = &mut answer {
            self.learn(failure, &map, slot, &node);
        }
        Some(answer)
    }

    /// Goes on after the first attempt, if there was one. `sent` becomes true before the command goes out.
    async fn persist(
        &self,
        command: &Cmd,
        route: Route<'_>,
        first: Option<Failure>,
        sent: &AtomicBool,
    ) -> Result<Value, Failure> {
        let mut attempts = Attempts::new(self.retries);
        let mut asked = None;
        let mut in_doubt = false;
        let mut failed = first;
        loop {
            let failure = match failed.take() {
                Some(failure) => failure,
                None => match self.attempt(command, route, asked.take(), sent).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                },
            };
            in_doubt |= failure.in_doubt;
            match attempts.next(&failure, route.resend) {
                Next::GiveUp => return Err(Failure { in_doubt, ..failure }),
                Next::Redirect => asked = failure.asks,
                Next::Pause(pause) => time::sleep(pause).await,
            }
        }
    }

    /// Sends the command once: to `asked`, which is about to get the key's slot, or else to the slot's master.
    async fn attempt(
        &self,
        command: &Cmd,
        route: Route<'_>,
        asked: Option<Address>,
        sent: &AtomicBool,
    ) -> Result<Value, Failure> {
        let map = self.topology.map().await.map_err(Failure::without_effect)?;
        let slot = slot_of(route.key);
        let is_asked = asked.is_some();
        let node = asked.map(|address| self.topology.node(address)).or_else(|| map.value.master(slot));
        let Some(node) = node else {
            self.topology.discard(&map);
            let error = (ErrorKind::ClusterConnectionNotFound, "no server of the cluster has the key's slot");
            return Err(Failure::without_effect(error.into()));
        };
        let mut answer = deliver(&node, command, route, is_asked, sent).await;
        if let Err(failure) = &mut answer {
            self.learn(failure, &map, slot, &node);
        }
        answer
    }

    fn learn(&self, failure: &mut Failure, map: &Made<Arc<Map>>, slot: u16, node: &Node) {
        let told = failure.error.redirect_node().and_then(|(address, _)| Address::told(address, &node.address));
        match (failure.error.kind(), told) {
            (ErrorKind::Server(ServerErrorKind::Moved), Some(master)) => {
                map.value.moved(slot, self.topology.node(master));
            }
            (ErrorKind::Server(ServerErrorKind::Ask), told) => failure.asks = told,
            (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
                // Its name may mean another server by now.
                node.hang_up();
                self.topology.discard(map);
            }
            _ if may_pass(&failure.error) => self.topology.discard(map),
            _ => {}
        }
    }
}

async fn deliver(
    node: &Node,
    command: &Cmd,
    route: Route<'_>,
    asking: bool,
    sent: &AtomicBool,
) -> Result<Value, Failure> {
    if route.resend == Resend::Unsafe && !node.is_fresh(route.lane) {
        let answer = node.send(route.lane, &redis::cmd("PING"), false).await;
        answer.map_err(|failure| Failure::without_effect(failure.error))?;
    }
    sent.store(true, Ordering::Relaxed);
    node.send(route.lane, command, asking).await
}

/// Whether it is about the servers and not about the command, so that trying again may help.
pub(super) fn may_pass(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    match error.kind() {
        ErrorKind::Io | ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(kind) => {
            matches!(kind, Ask | BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly | TryAgain)
        }
        _ => false,
    }
}

enum Next {
    GiveUp,
    Redirect,
    Pause(Duration),
}

/// Of one command.
struct Attempts {
    redirections: u32,
    retries: u32,
    pause: Duration,
    longest_pause: Duration,
}

impl Attempts {
    fn new(retries: Retries) -> Self {
        let Retries { most, shortest_pause, longest_pause } = retries;
        Self { redirections: MOST_REDIRECTIONS, retries: most, pause: shortest_pause, longest_pause }
    }

    fn next(&mut self, failure: &Failure, resend: Resend) -> Next {
        use ServerErrorKind::{Ask, Moved};
        if failure.in_doubt && resend == Resend::Unsafe || !may_pass(&failure.error) {
            return Next::GiveUp;
        }
        let is_redirection = matches!(failure.error.kind(), ErrorKind::Server(Ask | Moved));
        let left = if is_redirection { &mut self.redirections } else { &mut self.retries };
        let Some(fewer) = left.checked_sub(1) else { return Next::GiveUp };
        *left = fewer;
        if is_redirection {
            return Next::Redirect;
        }
        let pause = self.pause.min(self.longest_pause);
        self.pause = pause * 2;
        Next::Pause(pause)
    }
}
