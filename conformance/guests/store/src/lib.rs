//! What the example guests share: a state store whose every write says what it replaces, and how a program ends.

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;

use dapr::state::state_interface::{Concurrency, Consistency, GetOptions, WriteOptions};
use dapr::state::state_store::{self as interface, GetRequest, SetRequest, Transaction};

pub use dapr::state::state_store::{Error, Operation};

wit_bindgen::generate!({ path: "../../../host-abi/wit", world: "dapr:guest/command-guest", generate_all });

/// A Dapr state component.
pub struct Store<'a> {
    name: &'a str,
}

/// A value, and the etag of the write that it came with.
pub struct Item {
    pub data: Vec<u8>,
    pub etag: String,
}

/// What became of a write that was answered.
pub enum Outcome {
    Written,
    /// Somebody else wrote first, so that nothing was done: read again.
    Conflict,
}

impl Store<'_> {
    /// Nothing where the key does not exist.
    pub fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        let options = GetOptions { consistency: Consistency::Unspecified };
        let response = interface::get(self.name, &GetRequest { key: key.to_owned(), metadata: None, options })?;
        match response.etag {
            Some(etag) => Ok(Some(Item { data: response.data, etag })),
            None if response.data.is_empty() => Ok(None),
            // A plain string in Redis, which is not Dapr's: a write would replace it unseen.
            None => Err(Error::Internal(format!("{key} has a value without an etag"))),
        }
    }

    /// Writes a value in the place of `seen`, what was read there last.
    pub fn set(&self, key: &str, value: Vec<u8>, seen: Option<&Item>) -> Result<Outcome, Error> {
        self.write(&set_request(key, value, seen))
    }

    /// The same, of a value that is gone after so many seconds.
    pub fn set_for(&self, seconds: u32, key: &str, value: Vec<u8>, seen: Option<&Item>) -> Result<Outcome, Error> {
        let metadata = Some(vec![("ttlInSeconds".to_owned(), seconds.to_string())]);
        self.write(&SetRequest { metadata, ..set_request(key, value, seen) })
    }

    fn write(&self, request: &SetRequest) -> Result<Outcome, Error> {
        match interface::set(self.name, request) {
            Ok(()) => Ok(Outcome::Written),
            Err(Error::EtagMismatch(_)) => Ok(Outcome::Conflict),
            // Redis, as Dapr has it, knows no mismatch of a write without an etag.
            Err(Error::Internal(_)) if request.etag.is_none() && self.get(&request.key)?.is_some() => {
                Ok(Outcome::Conflict)
            }
            Err(error) => Err(error),
        }
    }

    /// Does all of the operations, or none.
    pub fn transact(&self, operations: Vec<Operation>) -> Result<Outcome, Error> {
        match interface::transact(self.name, &Transaction { operations, metadata: None }) {
            Ok(()) => Ok(Outcome::Written),
            Err(Error::EtagMismatch(_)) => Ok(Outcome::Conflict),
            Err(error) => Err(error),
        }
    }
}

/// With the etag of what was seen, or, where nothing was, as a first-write, which is for keys that do not exist.
pub fn set_request(key: &str, value: Vec<u8>, seen: Option<&Item>) -> SetRequest {
    SetRequest {
        key: key.to_owned(),
        value,
        etag: seen.map(|item| item.etag.clone()),
        metadata: None,
        options: WriteOptions { concurrency: Concurrency::FirstWrite, consistency: Consistency::Unspecified },
        content_type: None,
    }
}

/// Sixteen hexadecimal digits that nobody else has.
pub fn random_id() -> String {
    format!("{:016x}", random())
}

pub fn random() -> u64 {
    RandomState::new().hash_one(())
}

/// Why a program ends with another code than 0.
pub enum Failure {
    /// Its arguments are none that it knows: code 2.
    Usage,
    /// Code 1, as below.
    Store(Error),
    Other(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// An argument that is a number above zero.
pub fn positive(word: &str) -> Result<u32, Failure> {
    word.parse().ok().filter(|&number| number > 0).ok_or(Failure::Usage)
}

/// Runs a program with the store that its first option names, or `state`, and the words after it.
pub fn run(usage: &str, program: impl FnOnce(&Store, &[&str]) -> Result<(), Failure>) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match &words[..] {
        ["--store", name, words @ ..] => program(&Store { name }, words),
        words => program(&Store { name: "state" }, words),
    };
    let (message, code) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage) => (usage.to_owned(), 2),
        Err(Failure::Store(error)) => (explain(error), 1),
        Err(Failure::Other(message)) => (message, 1),
    };
    eprintln!("{message}");
    ExitCode::from(code)
}

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
