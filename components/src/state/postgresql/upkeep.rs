//! What is done beside the calls, from the first one on: idle connections are closed, and expired rows removed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;

use super::connections::Connections;
use super::failure::Failure;
use super::schema::Statements;
use crate::state::sql;

/// How often idle connections are looked for, at least.
const LONGEST_NAP: Duration = Duration::from_secs(60);
/// Dapr's.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) struct Upkeep {
    max_idle_time: Duration,
    cleanup_interval: Option<Duration>,
    /// They end when this is dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl Upkeep {
    /// Starts nothing yet.
    pub(super) fn new(max_idle_time: Duration, cleanup_interval: Option<Duration>) -> Self {
        Self { max_idle_time, cleanup_interval, tasks: Mutex::default() }
    }

    pub(super) fn start(&self, connections: &Connections, statements: &Arc<Statements>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(close_idle(connections.clone(), self.max_idle_time));
        if let Some(interval) = self.cleanup_interval {
            tasks.spawn(clean_up(connections.clone(), Arc::clone(statements), interval));
        }
    }
}

async fn close_idle(connections: Connections, max_idle_time: Duration) {
    loop {
        time::sleep(max_idle_time.min(LONGEST_NAP)).await;
        connections.close_idle(max_idle_time);
    }
}

async fn clean_up(connections: Connections, statements: Arc<Statements>, interval: Duration) {
    loop {
        time::sleep(interval).await;
        let once = clean_up_once(&connections, &statements, sql::cleanup_age(interval));
        match time::timeout(CLEANUP_TIMEOUT, once).await {
            Ok(Ok(())) => {}
            // The server's own words may have what is a secret, such as the user's name.
            Ok(Err(failure)) => tracing::warn!(class = ?failure.class(), "expired rows were not removed"),
            Err(_) => tracing::warn!("expired rows were not removed within {CLEANUP_TIMEOUT:?}"),
        }
    }
}

async fn clean_up_once(connections: &Connections, statements: &Statements, age: i64) -> Result<(), Failure> {
    let lease = connections.lease().await?;
    let result = statements.clean_up(&lease, age).await;
    lease.give_back();
    Ok(result?)
}
