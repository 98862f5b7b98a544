//! `secretstores.local.file`: a JSON file, read once, when the component is made.
//!
//! The name of a value is the way to it: `{"redis": {"password": "p"}, "list": ["a"]}` holds the secrets
//! `redis:password` and `list:0`, each with one value under its own name. With `multiValued` every member of the file is one secret,
//! `redis` with the key `password` and `list` with the key `0`; what lies deeper is joined below it.
//!
//! Other than in Dapr, whose file may hold text alone (a number comes out as `%!s(float64=1)`, and with `multiValued`
//! members that are neither text nor mappings are left out): numbers and booleans are what JSON writes, null is empty,
//! and two values of one name are an error, not one of the two.
//!
//! Source: dapr/components-contrib `secretstores/local/file/filestore.go`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use host_abi::error::Error;
use host_abi::secrets::Secret;
use serde_json::{Map, Value};

use super::{Budget, NONBLOCK, SecretSource};
use crate::app::App;
use crate::field::{Description, Field, fields};
use crate::properties::{InvalidProperty, Properties};

fields! {
    FIELDS {
        SECRETS_FILE = Field::text("secretsFile", "a JSON file in the container, read once, when the container is created").required();
        NESTED_SEPARATOR = Field::text("nestedSeparator", "between the names on the way to a value").or(":");
        MULTI_VALUED = Field::flag(
            "multiValued",
            "`true`: every member of the file is one secret, with a key for each value in it. Else every value is a \
             secret of its own, named by the way to it (`redis:password`)",
        );
    }
}

pub const DESCRIPTION: Description =
    Description { about: "The values of a JSON file.", fields: FIELDS, without_effect: &[] };

struct LocalFile(BTreeMap<String, Secret>);

/// # Errors
/// There is no such file, or it does not hold what it should. The message quotes nothing of it.
pub fn construct(properties: &Properties, _: &App) -> Result<Arc<dyn SecretSource>, InvalidProperty> {
    let file = properties.required(&SECRETS_FILE)?;
    let separator = properties.required(&NESTED_SEPARATOR)?;
    let secrets = read(file).and_then(|members| secrets(members, separator, properties.flag(&MULTI_VALUED)));
    let secrets = secrets.map_err(|problem| InvalidProperty::Other(format!("`secretsFile` {problem}")))?;
    Ok(Arc::new(LocalFile(secrets)))
}

impl SecretSource for LocalFile {
    fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        Ok(self.0.get(name).cloned())
    }

    fn all(&self) -> Result<BTreeMap<String, Secret>, Error> {
        Ok(self.0.clone())
    }
}

/// What is wrong with the file, in words without its content.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("is not JSON: line {line}, column {column}")]
    Syntax { line: usize, column: usize },
    #[error("must hold a JSON object")]
    NoObject,
    #[error("has two values named {0:?}")]
    Repeated(String),
}

fn read(path: &str) -> Result<Map<String, Value>, Problem> {
    let mut file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path)?;
    let bytes = Budget::new().read(&mut file)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Problem::NoObject),
        Err(error) => Err(Problem::Syntax { line: error.line(), column: error.column() }),
    }
}

fn secrets(
    members: Map<String, Value>,
    separator: &str,
    multi_valued: bool,
) -> Result<BTreeMap<String, Secret>, Problem> {
    let mut flattened = Flattened::new(separator);
    if !multi_valued {
        flattened.members(members)?;
        let values = flattened.take().into_iter();
        return Ok(values.map(|(name, value)| (name.clone(), Secret::from([(name, value)]))).collect());
    }
    let mut secrets = BTreeMap::new();
    for (name, value) in members {
        match value {
            Value::Object(members) => flattened.members(members)?,
            Value::Array(elements) => flattened.elements(elements)?,
            scalar => flattened.member(&name, scalar)?,
        }
        secrets.insert(name, flattened.take());
    }
    Ok(secrets)
}

/// Values by the way to them.
struct Flattened<'a> {
    separator: &'a str,
    path: String,
    depth: usize,
    values: Secret,
    /// A long name on the way is repeated in each name below it.
    budget: Budget,
}

impl<'a> Flattened<'a> {
    fn new(separator: &'a str) -> Self {
        Self { separator, path: String::new(), depth: 0, values: Secret::new(), budget: Budget::new() }
    }

    fn take(&mut self) -> Secret {
        std::mem::take(&mut self.values)
    }

    fn members(&mut self, members: Map<String, Value>) -> Result<(), Problem> {
        members.into_iter().try_for_each(|(name, value)| self.member(&name, value))
    }

    fn elements(&mut self, elements: Vec<Value>) -> Result<(), Problem> {
        (0..).zip(elements).try_for_each(|(index, value): (usize, _)| self.member(&index.to_string(), value))
    }

    fn member(&mut self, name: &str, value: Value) -> Result<(), Problem> {
        let outer = self.path.len();
        if self.depth > 0 {
            self.path.push_str(self.separator);
        }
        self.path.push_str(name);
        self.depth += 1;
        match value {
            Value::Object(members) => self.members(members)?,
            Value::Array(elements) => self.elements(elements)?,
            Value::String(text) => self.add(text)?,
            Value::Null => self.add(String::new())?,
            Value::Bool(_) | Value::Number(_) => self.add(value.to_string())?,
        }
        self.depth -= 1;
        self.path.truncate(outer);
        Ok(())
    }

    fn add(&mut self, value: String) -> Result<(), Problem> {
        self.budget.take(self.path.len() + value.len())?;
        match self.values.insert(self.path.clone(), value.into()) {
            None => Ok(()),
            Some(_) => Err(Problem::Repeated(self.path.clone())),
        }
    }
}
