//! What a call to the server goes through: its time-out, the tables, another attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use host_abi::error::{Error, ErrorClass};
use tokio::sync::OnceCell;
use tokio::time;

use super::connections::Connections;
use super::failure::Failure;
use super::options::Options;
use super::schema::Statements;
use super::upkeep::Upkeep;
use super::work::Work;

pub(super) struct Database {
    address: String,
    connections: Connections,
    timeout: Duration,
    statements: Arc<Statements>,
    migrated: OnceCell<()>,
    upkeep: Upkeep,
}

impl Database {
    /// Does not connect.
    pub(super) fn new(options: Options) -> Self {
        let statements = Statements::new(&options.table_prefix, &options.metadata_table, options.prepares);
        Self {
            address: options.address(),
            connections: Connections::new(options.config, options.tls, options.max_connections),
            timeout: options.timeout,
            statements: Arc::new(statements),
            migrated: OnceCell::new(),
            upkeep: Upkeep::new(options.max_idle_time, options.cleanup_interval),
        }
    }

    /// Does `work` on a connection, within the component's time-out. It is done again where another transaction was
    /// in its way, and, if it is repeatable, where the connection was lost in the middle of it.
    pub(super) async fn run<W: Work>(&self, work: &W) -> Result<W::Done, Error> {
        let begun = AtomicBool::new(false);
        let result = time::timeout(self.timeout, self.attempts(work, &begun)).await;
        let (class, reason, has_begun) = match result {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(failure)) => (failure.class(), failure.to_string(), !failure.is_without_effect()),
            Err(_) => (ErrorClass::Unavailable, format!("no answer within {:?}", self.timeout), begun.into_inner()),
        };
        if class == ErrorClass::Unavailable {
            self.distrust_idle();
        }
        let error = Error::new(class, format!("postgresql at {}: {reason}", self.address));
        Err(if has_begun { error } else { error.without_effect() })
    }

    /// `begun` becomes true before anything of `work` goes out.
    async fn attempts<W: Work>(&self, work: &W, begun: &AtomicBool) -> Result<W::Done, Failure> {
        let mut may_be_lost = work.is_repeatable();
        loop {
            match self.attempt(work, begun).await {
                Err(failure) if failure.is_conflict() => {}
                Err(failure) if may_be_lost && failure.is_lost_connection() => {
                    may_be_lost = false;
                    self.distrust_idle();
                }
                result => return result,
            }
        }
    }

    async fn attempt<W: Work>(&self, work: &W, begun: &AtomicBool) -> Result<W::Done, Failure> {
        let mut lease = self.connections.lease().await?;
        let result = match self.migrated.get_or_try_init(|| self.migrate(&mut lease)).await {
            Ok(_) => {
                begun.store(true, Ordering::Relaxed);
                work.run(&mut lease, &self.statements).await.map_err(Failure::Statement)
            }
            Err(failure) => Err(failure),
        };
        lease.give_back();
        result
    }

    async fn migrate(&self, client: &mut ClientWrapper) -> Result<(), Failure> {
        self.statements.migrate(client).await?;
        self.upkeep.start(&self.connections, &self.statements);
        Ok(())
    }

    /// The server is not what it was: no connection is used again that was there before.
    fn distrust_idle(&self) {
        self.connections.close_idle(Duration::ZERO);
    }
}
