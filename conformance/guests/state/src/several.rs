//! Several keys in one call, through the interface with typed errors.

use crate::dapr::state::state_store::{self as store, BulkError, Error, Operation, Transaction};
use crate::options::{Options, Write};
use crate::{delete_request, get_request, set_request};

/// Prints a line for each key.
pub fn bulk_get(keys: &[String], options: &Options) -> Result<(), String> {
    let requests: Vec<_> = keys.iter().map(|key| get_request(key, options)).collect();
    let answers = store::bulk_get(&options.store, &requests).map_err(explain)?;
    for (key, answer) in keys.iter().zip(answers) {
        match answer {
            Ok(response) => println!("{key}: {}", String::from_utf8_lossy(&response.data)),
            Err(error) => println!("{key}: {}", explain(error)),
        }
    }
    Ok(())
}

/// Sets, or deletes, all of the keys.
pub fn bulk_write(writes: &[Write], options: &Options) -> Result<(), String> {
    let (mut sets, mut deletes) = (Vec::new(), Vec::new());
    for write in writes {
        match operation(write, options) {
            Operation::Upsert(request) => sets.push(request),
            Operation::Delete(request) => deletes.push(request),
        }
    }
    if !sets.is_empty() {
        store::bulk_set(&options.store, &sets).map_err(explain_all)?;
    }
    if !deletes.is_empty() {
        store::bulk_delete(&options.store, &deletes).map_err(explain_all)?;
    }
    Ok(())
}

pub fn transact(writes: &[Write], options: &Options) -> Result<(), String> {
    let operations = writes.iter().map(|write| operation(write, options)).collect();
    store::transact(&options.store, &Transaction { operations, metadata: None }).map_err(explain)
}

fn operation(write: &Write, options: &Options) -> Operation {
    match write {
        Write::Set { key, value, etag } => {
            let mut request = set_request(key, value.as_bytes(), options);
            request.etag.clone_from(etag);
            Operation::Upsert(request)
        }
        Write::Delete { key, etag } => {
            let mut request = delete_request(key, options);
            request.etag.clone_from(etag);
            Operation::Delete(request)
        }
    }
}

/// As the original interface writes its errors.
fn explain(error: Error) -> String {
    let (class, message) = match error {
        Error::EtagMismatch(message) => ("etag-mismatch", message),
        Error::EtagInvalid(message) => ("etag-invalid", message),
        Error::NotFound(message) => ("not-found", message),
        Error::InvalidArgument(message) => ("invalid-argument", message),
        Error::Unavailable(message) => ("unavailable", message),
        Error::PermissionDenied(message) => ("permission-denied", message),
        Error::Internal(message) => ("internal", message),
    };
    format!("{class}: {message}")
}

/// A line for each key that failed.
fn explain_all(error: BulkError) -> String {
    match error {
        BulkError::Store(error) => explain(error),
        BulkError::Items(items) => {
            let lines = items.into_iter().map(|item| format!("{}: {}", item.key, explain(item.error)));
            lines.collect::<Vec<_>>().join("\n")
        }
    }
}
