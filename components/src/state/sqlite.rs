//! `state.sqlite`: the tables of Dapr's own store, so that both may use one file.
//!
//! A value is a row of the state table: base64 with `is_binary` 1, which is how Dapr stores the
//! bytes of its clients; a row with `is_binary` 0 is read as the text that it is. Etags are UUIDs. Times are
//! SQLite's `CURRENT_TIMESTAMP`, whole seconds, so that a value may expire up to a second early.
//! Source: dapr/components-contrib `state/sqlite/sqlite_dbaccess.go`.
//!
//! The file is opened on the first call, by a thread of the store's own, which then makes all calls in turn: a
//! database that is slow or locked holds up no other guest. A file that cannot be opened is an answer to the
//! guest, and the next call tries again.

mod options;
mod schema;
mod worker;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use host_abi::error::{Error, ErrorClass};
use host_abi::state::{Concurrency, DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, named_params, params};
use uuid::Uuid;

use self::options::Options;
use self::schema::Statements;
use self::worker::Worker;
use super::ttl::{self, Ttl};
use super::{check_uuid_etag, etag_mismatch};
use crate::field::Description;
use crate::properties::{InvalidProperty, Properties};

pub const DESCRIPTION: Description = Description {
    about: "A file in the container, with the tables that Dapr's store has in it: both may use one file.",
    fields: options::FIELDS,
    without_effect: &[],
};

/// # Errors
/// The metadata is malformed.
pub fn construct(properties: &Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> {
    let options = Options::new(properties)?;
    let statements = Arc::new(Statements::new(&options.table, &options.metadata_table));
    let worker = Worker::new(options, Arc::clone(&statements));
    Ok(Arc::new(Sqlite { worker, statements }))
}

struct Sqlite {
    worker: Worker,
    statements: Arc<Statements>,
}

impl Sqlite {
    async fn write(&self, operation: Operation) -> Result<(), Error> {
        let key = operation.key().to_owned();
        let write = Write::of(operation)?;
        let statements = Arc::clone(&self.statements);
        let fits = self.worker.run(move |database| write.execute(database, &statements)).await?;
        if fits { Ok(()) } else { Err(etag_mismatch(&key)) }
    }
}

/// A row of the state table, its value as stored.
struct Stored {
    value: Vec<u8>,
    is_binary: bool,
    etag: String,
    expires: Option<String>,
}

impl Stored {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            value: row.get_ref("value")?.as_bytes()?.to_vec(),
            is_binary: row.get("is_binary")?,
            etag: row.get("etag")?,
            expires: row.get("expires")?,
        })
    }

    fn into_response(self, key: &str) -> Result<GetResponse, Error> {
        let damaged = |_| Error::new(ErrorClass::Internal, format!("key {key:?}: the stored value is not base64"));
        let data = if self.is_binary { BASE64.decode(&self.value).map_err(damaged)? } else { self.value };
        Ok(GetResponse {
            data: Bytes::from(data),
            etag: Some(self.etag),
            metadata: self.expires.map(ttl::expiry_metadata),
            content_type: None,
        })
    }
}

#[async_trait]
impl StateStore for Sqlite {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        let (statements, key) = (Arc::clone(&self.statements), request.key.clone());
        let stored = self
            .worker
            .run(move |database| {
                let mut select = database.prepare_cached(&statements.select)?;
                select.query_row(params![key], Stored::read).optional()
            })
            .await?;
        stored.map_or_else(|| Ok(GetResponse::default()), |stored| stored.into_response(&request.key))
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.write(Operation::Upsert(request)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.write(Operation::Delete(request)).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let writes = operations.into_iter().map(Write::of).collect::<Result<Vec<_>, _>>()?;
        let statements = Arc::clone(&self.statements);
        let refused = self
            .worker
            .run(move |database| {
                let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
                for write in writes {
                    if !write.execute(database, &statements)? {
                        // Dropped without a commit, the transaction is rolled back.
                        return Ok(Some(write.operation));
                    }
                }
                transaction.commit()?;
                Ok(None)
            })
            .await?;
        refused.map_or(Ok(()), |operation| Err(etag_mismatch(operation.key())))
    }
}

/// A write whose arguments are checked.
struct Write {
    operation: Operation,
    seconds: Option<u32>,
}

impl Write {
    fn of(operation: Operation) -> Result<Self, Error> {
        let seconds = match &operation {
            Operation::Upsert(request) => {
                check_uuid_etag(request)?;
                Ttl::of(request)?.and_then(Ttl::seconds)
            }
            Operation::Delete(_) => None,
        };
        Ok(Self { operation, seconds })
    }

    /// False where the etag does not fit.
    fn execute(&self, database: &Connection, statements: &Statements) -> rusqlite::Result<bool> {
        match &self.operation {
            Operation::Upsert(request) => self.upsert(request, database, statements),
            Operation::Delete(DeleteRequest { key, etag: None, .. }) => {
                database.prepare_cached(&statements.delete)?.execute(params![key])?;
                Ok(true)
            }
            Operation::Delete(DeleteRequest { key, etag: Some(etag), .. }) => {
                Ok(database.prepare_cached(&statements.delete_version)?.execute(params![key, etag])? > 0)
            }
        }
    }

    fn upsert(&self, request: &SetRequest, database: &Connection, statements: &Statements) -> rusqlite::Result<bool> {
        let statement = match (&request.etag, request.options.concurrency) {
            (Some(_), _) => &statements.update,
            (None, Concurrency::FirstWrite) => &statements.insert,
            (None, _) => &statements.upsert,
        };
        let mut statement = database.prepare_cached(statement)?;
        let values = named_params! {
            ":key": request.key,
            ":value": BASE64.encode(&request.value),
            ":etag": Uuid::new_v4().to_string(),
            ":seconds": self.seconds,
        };
        let written = match &request.etag {
            None => statement.execute(values)?,
            Some(expected) => statement.execute(&[values, &[(":expected", expected as _)]].concat()[..])?,
        };
        Ok(written > 0)
    }
}
