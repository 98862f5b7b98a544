//! How statements are sent.

use deadpool_postgres::{ClientWrapper, StatementCache, Transaction};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use super::schema::Statements;

/// A parameter of a statement. With its type the server need not be asked for it.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A connection, or a transaction on it.
pub(super) struct Session<'a> {
    client: &'a Client,
    prepared: Option<&'a StatementCache>,
}

impl<'a> Session<'a> {
    pub(super) fn new(client: &'a ClientWrapper, statements: &Statements) -> Self {
        Self { client, prepared: statements.prepared.then_some(&*client.statement_cache) }
    }

    pub(super) fn within(transaction: &'a Transaction<'_>, statements: &Statements) -> Self {
        Self { client: transaction.client(), prepared: statements.prepared.then_some(&*transaction.statement_cache) }
    }

    /// The number of rows written.
    pub(super) async fn execute(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        match self.prepare(text, parameters).await? {
            Some(statement) => self.client.execute(&statement, &values(parameters)).await,
            None => self.client.execute_typed(text, parameters).await,
        }
    }

    /// The row, if there is one.
    pub(super) async fn query(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<Option<Row>, Error> {
        match self.prepare(text, parameters).await? {
            Some(statement) => self.client.query_opt(&statement, &values(parameters)).await,
            None => self.client.query_typed_opt(text, parameters).await,
        }
    }

    async fn prepare(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<Option<Statement>, Error> {
        let Some(prepared) = self.prepared else { return Ok(None) };
        let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
        prepared.prepare_typed(self.client, text, &types).await.map(Some)
    }
}

fn values<'a>(parameters: &[Parameter<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters.iter().map(|&(value, _)| value).collect()
}
