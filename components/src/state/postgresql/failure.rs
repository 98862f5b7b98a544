//! What can go wrong, and what a guest is told of it.

use std::error::Error as _;
use std::{fmt, io};

use host_abi::error::ErrorClass;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

#[derive(Debug)]
pub(super) enum Failure {
    /// There is no connection.
    Connect(Error),
    /// A statement failed.
    Statement(Error),
    /// What nobody expects, such as a table that holds something else.
    Unexpected(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Statement(error)
    }
}

impl Failure {
    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::Unexpected(_) => ErrorClass::Internal,
            Self::Connect(error) | Self::Statement(error) => match error.code() {
                Some(code) => class_of_code(code.code()),
                None if is_refused_login(error) => ErrorClass::PermissionDenied,
                None if matches!(self, Self::Connect(_)) || is_lost(error) => ErrorClass::Unavailable,
                None => ErrorClass::Internal,
            },
        }
    }

    /// Whether nothing was sent, or the server undid what was.
    pub(super) fn is_without_effect(&self) -> bool {
        let is_refusal = |error: &Error| error.code().is_some_and(|code| is_refusal_for_now(code.code()));
        match self {
            Self::Connect(_) => true,
            Self::Statement(error) => self.is_conflict() || is_refusal(error),
            Self::Unexpected(_) => false,
        }
    }

    /// Whether two transactions were in each other's way: the server undid this one, which may be tried again.
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Statement(error) = self else { return false };
        matches!(error.code(), Some(&(SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED)))
    }

    /// Whether the connection was lost, so that nobody knows what became of the statement.
    pub(super) fn is_lost_connection(&self) -> bool {
        let Self::Statement(error) = self else { return false };
        is_lost(error) || error.code().is_some_and(|code| code.code().starts_with("57P"))
    }
}

impl fmt::Display for Failure {
    /// Of the server's own answer the message and the code: its details may hold values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Self::Unexpected(message) => return f.write_str(message),
            Self::Connect(error) | Self::Statement(error) => error,
        };
        if let Some(answer) = error.as_db_error() {
            return write!(f, "{} ({})", answer.message(), answer.code().code());
        }
        write!(f, "{error}")?;
        let mut source = error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// See <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn class_of_code(code: &str) -> ErrorClass {
    match code {
        "28000" | "28P01" | "42501" => ErrorClass::PermissionDenied,
        // A key with a zero byte, or a character that the database has no place for, or too long for an index.
        "22021" | "22P05" | "54000" => ErrorClass::InvalidArgument,
        code if is_refusal_for_now(code) => ErrorClass::Unavailable,
        // Cancelled, a disk that fails; of the other classes, the connection and the server going down.
        "57014" | "58030" => ErrorClass::Unavailable,
        code if code.starts_with("08") || code.starts_with("57P") => ErrorClass::Unavailable,
        _ => ErrorClass::Internal,
    }
}

/// Read-only, a lock that is not to be had, and the class of what runs out: disk, memory, connections. The server undid
/// what had begun.
fn is_refusal_for_now(code: &str) -> bool {
    matches!(code, "25006" | "55P03") || code.starts_with("53")
}

fn is_lost(error: &Error) -> bool {
    error.is_closed() || error.source().is_some_and(|source| source.is::<io::Error>())
}

/// The server wants a password that there is not, or a way to log in that the driver does not know. The driver
/// keeps the kinds of its errors to itself, except in these texts.
fn is_refused_login(error: &Error) -> bool {
    let has_no_password = |source: &dyn std::error::Error| source.to_string() == "password missing";
    error.to_string() == "authentication error" || error.source().is_some_and(has_no_password)
}
