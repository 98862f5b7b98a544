//! `state.postgresql`, version `v2`: the tables of Dapr's own store, so that both may use one database.
//!
//! A value is a row of the table `state` (after `tablePrefix`), its bytes as they are. Etags are UUIDs. The tables
//! are created as Dapr does it, under the lock that Dapr takes; where they are there already, the user that connects
//! need not have the right to create any.
//! Source: dapr/components-contrib `state/postgresql/v2`.
//!
//! What Dapr does and one might not expect, done here too, since both must agree on a row:
//! - An etag that is no UUID is an etag mismatch, not an invalid etag.
//! - A set with an etag on a missing key is refused, and whether it says last-write does not matter.
//! - A set without `ttlInSeconds` clears the expiry of the key.
//! - A delete with an etag finds a row that expired as long as it was not cleaned up.
//!
//! What is done otherwise:
//! - `timeout` counts for the whole of a call, Dapr's for each statement that is not a set.
//! - Transactions that are in each other's way (a deadlock, a failed serialization) are done again.
//! - `maxConns` may be 1.
//!
//! Connections:
//! - The store connects when it is first called. While the server cannot be reached every call tries again, and
//!   answers `unavailable`. A connection that was lost is noticed before the next call uses it; a write with an etag,
//!   a first-write, or a transaction with one of these, that was under way is not sent twice; everything else is.
//! - A call that is given up has its statement cancelled and its connection closed, so that no lock stays behind.
//! - The server's own settings, such as `search_path`, go into `options` (`options='-c search_path=apps'`). Neither
//!   `PGHOST` and its like nor `~/.pgpass` are read, since they would be the guest's.
//! - Behind a proxy that shares connections among its clients (PgBouncer in transaction mode) statements cannot
//!   always be prepared: every `queryExecMode` but `cache_statement` does without.
//! - `sslmode` means what libpq makes of it; `prefer`, the default, protects against nobody who is in the way.
//!   `require` verifies nothing, unless there is an `sslrootcert`. The `verify` modes take the system's
//!   certificates where there is none. A server's certificate that is its own authority is taken by none of
//!   them, nor is one that has its name only in the subject.

mod connection_string;
mod connections;
mod database;
mod failure;
mod fields;
mod options;
mod schema;
mod session;
mod tls;
mod upkeep;
mod work;

use std::sync::Arc;

use async_trait::async_trait;
use host_abi::error::Error;
use host_abi::state::{DeleteRequest, GetRequest, GetResponse, Operation, SetRequest, StateStore};

use self::database::Database;
use self::options::Options;
use self::work::{Read, Transaction, Write};
use super::etag_mismatch;
use crate::field::Description;
use crate::properties::{InvalidProperty, Properties};

pub const DESCRIPTION: Description = Description {
    about: "Tables in a PostgreSQL database, as Dapr's store of this version has them: both may use one database. Version \
            v1, which Dapr means where a component says none, has other tables, and is not supported: its data stays with \
            Dapr, or another `tablePrefix` begins anew.",
    fields: fields::FIELDS,
    without_effect: &[],
};

/// # Errors
/// The metadata is malformed.
pub fn construct(properties: &Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> {
    Ok(Arc::new(Postgresql { database: Database::new(Options::new(properties)?) }))
}

struct Postgresql {
    database: Database,
}

impl Postgresql {
    async fn write(&self, operation: Operation) -> Result<(), Error> {
        let write = Write::of(operation)?;
        if self.database.run(&write).await? { Ok(()) } else { Err(etag_mismatch(write.key())) }
    }
}

#[async_trait]
impl StateStore for Postgresql {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, Error> {
        Ok(self.database.run(&Read { key: request.key }).await?.unwrap_or_default())
    }

    async fn set(&self, request: SetRequest) -> Result<(), Error> {
        self.write(Operation::Upsert(request)).await
    }

    async fn delete(&self, request: DeleteRequest) -> Result<(), Error> {
        self.write(Operation::Delete(request)).await
    }

    async fn transact(&self, operations: Vec<Operation>) -> Result<(), Error> {
        let writes = operations.into_iter().map(Write::of).collect::<Result<Vec<_>, _>>()?;
        if writes.is_empty() {
            return Ok(());
        }
        let transaction = Transaction { writes };
        let refused = self.database.run(&transaction).await?;
        refused.map_or(Ok(()), |index| Err(etag_mismatch(transaction.writes[index].key())))
    }
}
