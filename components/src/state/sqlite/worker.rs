//! The thread that owns the database.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use host_abi::error::{Error, ErrorClass};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;
use tokio::time;

use super::options::Options;
use super::schema::Statements;
use crate::state::sql;

type Job = Box<dyn FnOnce(&mut Database) + Send>;

pub(super) struct Worker {
    options: Arc<Options>,
    statements: Arc<Statements>,
    /// To the thread, once there is one. It ends when this is dropped.
    jobs: Mutex<Option<Sender<Job>>>,
}

impl Worker {
    /// Starts nothing yet.
    pub(super) fn new(options: Options, statements: Arc<Statements>) -> Self {
        Self { options: Arc::new(options), statements, jobs: Mutex::default() }
    }

    /// Waits for `work` on the open database, but not longer than the time-out; it may still be done later.
    pub(super) async fn run<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |database: &mut Database| {
            // Nobody waits any longer: what is not begun is left undone.
            if !reply.is_closed() {
                let _ = reply.send(database.open().and_then(work));
            }
        });
        self.submit(job)?;
        match time::timeout(self.options.timeout, answer).await {
            Ok(Ok(result)) => result.map_err(|error| explain(&error)),
            Ok(Err(_)) => Err(Error::new(ErrorClass::Internal, "sqlite: the thread of the database ended")),
            Err(_) => {
                let message = format!("sqlite: no answer within {:?}", self.options.timeout);
                Err(Error::new(ErrorClass::Unavailable, message))
            }
        }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = match jobs.as_ref() {
            Some(jobs) => jobs.send(job).map_err(|mpsc::SendError(job)| job),
            None => Err(job),
        };
        // No thread yet, or one that ended in a panic.
        if let Err(job) = sent {
            let sender = self.start()?;
            let _ = sender.send(job);
            *jobs = Some(sender);
        }
        Ok(())
    }

    fn start(&self) -> Result<Sender<Job>, Error> {
        let (sender, jobs) = mpsc::channel();
        let (options, statements) = (Arc::clone(&self.options), Arc::clone(&self.statements));
        let mut database = Database { options, statements, connection: None };
        let thread = thread::Builder::new().name("sqlite".to_owned()).spawn(move || database.serve(&jobs));
        let failed =
            |error| Error::new(ErrorClass::Unavailable, format!("sqlite: no thread: {error}")).without_effect();
        thread.map(|_| sender).map_err(failed)
    }
}

struct Database {
    options: Arc<Options>,
    statements: Arc<Statements>,
    connection: Option<Connection>,
}

impl Database {
    fn open(&mut self) -> rusqlite::Result<&Connection> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.options.uri, flags)?;
        connection.busy_timeout(self.options.busy_timeout)?;
        connection.pragma_update(None, "journal_mode", self.options.journal_mode)?;
        self.statements.migrate(&mut connection)?;
        Ok(connection)
    }

    fn serve(&mut self, jobs: &Receiver<Job>) {
        let Some(interval) = self.options.cleanup_interval else {
            return jobs.iter().for_each(|job| job(self));
        };
        let mut next_cleanup = Instant::now() + interval;
        loop {
            // With jobs waiting all the time, the time would never be seen to be over.
            let left = next_cleanup.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.clean_up(interval);
                next_cleanup = Instant::now() + interval;
            }
            match jobs.recv_timeout(left) {
                Ok(job) => job(self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn clean_up(&self, interval: Duration) {
        if let Some(connection) = &self.connection
            && let Err(error) = self.statements.clean_up(connection, sql::cleanup_age(interval))
        {
            tracing::warn!(%error, "expired rows were not removed");
        }
    }
}

fn explain(error: &rusqlite::Error) -> Error {
    use ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
    let message = format!("sqlite: {error}");
    match error.sqlite_error_code() {
        // What had been begun was rolled back.
        Some(CannotOpen | DatabaseBusy | DatabaseLocked | DiskFull) => {
            Error::new(ErrorClass::Unavailable, message).without_effect()
        }
        Some(SystemIoFailure) => Error::new(ErrorClass::Unavailable, message),
        _ => Error::new(ErrorClass::Internal, message),
    }
}
