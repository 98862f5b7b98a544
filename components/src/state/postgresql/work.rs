//! What is done on a connection: reads, writes and transactions.

use std::future::Future;
use std::time::SystemTime;

use bytes::Bytes;
use deadpool_postgres::ClientWrapper;
use host_abi::error::Error;
use host_abi::state::{Concurrency, DeleteRequest, GetResponse, Operation, SetRequest};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::schema::Statements;
use super::session::Session;
use crate::state::etag_mismatch;
use crate::state::ttl::{self, Ttl};

/// A closure would do, if it could be said of one that its future may go to another thread.
pub(super) trait Work: Sync {
    type Done: Send;

    /// Whether doing it twice is the same as doing it once.
    fn is_repeatable(&self) -> bool;

    fn run(
        &self,
        client: &mut ClientWrapper,
        statements: &Statements,
    ) -> impl Future<Output = Result<Self::Done, tokio_postgres::Error>> + Send;
}

pub(super) struct Read {
    pub(super) key: String,
}

impl Work for Read {
    /// None where the key does not exist.
    type Done = Option<GetResponse>;

    fn is_repeatable(&self) -> bool {
        true
    }

    async fn run(
        &self,
        client: &mut ClientWrapper,
        statements: &Statements,
    ) -> Result<Option<GetResponse>, tokio_postgres::Error> {
        let session = Session::new(client, statements);
        let row = session.query(&statements.select, &[(&self.key, Type::TEXT)]).await?;
        row.as_ref().map(response).transpose()
    }
}

fn response(row: &Row) -> Result<GetResponse, tokio_postgres::Error> {
    let value: Vec<u8> = row.try_get("value")?;
    let etag: Uuid = row.try_get("etag")?;
    let expires: Option<SystemTime> = row.try_get("expires_at")?;
    Ok(GetResponse {
        data: Bytes::from(value),
        etag: Some(etag.to_string()),
        metadata: expires.and_then(ttl::rfc3339).map(ttl::expiry_metadata),
        content_type: None,
    })
}

/// A write whose arguments are checked.
pub(super) struct Write {
    operation: Operation,
    etag: Option<Uuid>,
    seconds: Option<f64>,
}

impl Write {
    pub(super) fn of(operation: Operation) -> Result<Self, Error> {
        let (etag, seconds) = match &operation {
            Operation::Upsert(request) => (&request.etag, Ttl::of(request)?.and_then(Ttl::seconds)),
            Operation::Delete(request) => (&request.etag, None),
        };
        let etag = etag.as_ref().map(|etag| Uuid::parse_str(etag).map_err(|_| etag_mismatch(operation.key())));
        Ok(Self { etag: etag.transpose()?, seconds: seconds.map(f64::from), operation })
    }

    pub(super) fn key(&self) -> &str {
        self.operation.key()
    }

    /// False where the etag does not fit.
    async fn execute(&self, session: &Session<'_>, statements: &Statements) -> Result<bool, tokio_postgres::Error> {
        match (&self.operation, &self.etag) {
            (Operation::Upsert(request), _) => self.upsert(request, session, statements).await,
            (Operation::Delete(DeleteRequest { key, .. }), None) => {
                session.execute(&statements.delete, &[(key, Type::TEXT)]).await?;
                Ok(true)
            }
            (Operation::Delete(DeleteRequest { key, .. }), Some(etag)) => {
                let parameters = [(key as _, Type::TEXT), (etag as _, Type::UUID)];
                Ok(session.execute(&statements.delete_version, &parameters).await? > 0)
            }
        }
    }

    async fn upsert(
        &self,
        request: &SetRequest,
        session: &Session<'_>,
        statements: &Statements,
    ) -> Result<bool, tokio_postgres::Error> {
        let value: &[u8] = &request.value;
        let mut parameters =
            vec![(&request.key as _, Type::TEXT), (&value as _, Type::BYTEA), (&self.seconds as _, Type::FLOAT8)];
        let statement = match (&self.etag, request.options.concurrency) {
            (Some(etag), _) => {
                parameters.push((etag as _, Type::UUID));
                &statements.update
            }
            (None, Concurrency::FirstWrite) => &statements.insert,
            (None, _) => &statements.upsert,
        };
        Ok(session.execute(statement, &parameters).await? > 0)
    }
}

impl Work for Write {
    /// False where the etag does not fit.
    type Done = bool;

    fn is_repeatable(&self) -> bool {
        !self.operation.is_conditional()
    }

    async fn run(&self, client: &mut ClientWrapper, statements: &Statements) -> Result<bool, tokio_postgres::Error> {
        self.execute(&Session::new(client, statements), statements).await
    }
}

pub(super) struct Transaction {
    pub(super) writes: Vec<Write>,
}

impl Work for Transaction {
    /// The index of the write that was refused, if one was: then nothing is written.
    type Done = Option<usize>;

    fn is_repeatable(&self) -> bool {
        self.writes.iter().all(Write::is_repeatable)
    }

    async fn run(
        &self,
        client: &mut ClientWrapper,
        statements: &Statements,
    ) -> Result<Option<usize>, tokio_postgres::Error> {
        let transaction = client.transaction().await?;
        let session = Session::within(&transaction, statements);
        for (index, write) in self.writes.iter().enumerate() {
            if !write.execute(&session, statements).await? {
                transaction.rollback().await?;
                return Ok(Some(index));
            }
        }
        transaction.commit().await?;
        Ok(None)
    }
}
