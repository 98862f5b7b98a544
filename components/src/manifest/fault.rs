//! What is wrong with manifests, and where.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::properties::InvalidProperty;
use crate::resiliency::InvalidPolicy;
use crate::secrets::SecretProblem;

/// Where a document stands. Documents and lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: PathBuf,
    pub document: Option<usize>,
    pub line: Option<usize>,
}

impl Place {
    pub(super) fn path(path: impl AsRef<Path>) -> Self {
        Self { file: path.as_ref().to_owned(), document: None, line: None }
    }

    pub(super) fn document(file: &Path, number: usize, line: usize) -> Self {
        Self { file: file.to_owned(), document: Some(number), line: Some(line) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong. No message holds the value of a component's metadata: it may be a secret.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Fault {
    pub place: Place,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("{0}")]
    Yaml(String),
    #[error("the component has no `metadata.name`")]
    Nameless,
    #[error("component {component}: the name is already taken in {first}")]
    Duplicate { component: String, first: Place },
    #[error("component {component}: unknown type {component_type} version {version}; known: {known}")]
    UnknownType { component: String, component_type: String, version: String, known: String },
    #[error("component {component}: `{item}` refers to the secret {secret:?}: {source}")]
    Secret { component: String, item: String, secret: String, source: Box<SecretProblem> },
    #[error("component {component}: it needs the secret store {store:?}, and those need one another in a circle")]
    SecretStoreCycle { component: String, store: String },
    #[error("the secret store {store:?} has a scope already, in {first}")]
    RepeatedScope { store: String, first: Place },
    #[error("component {component}: `{item}` may not read the environment variable {variable:?}")]
    DeniedVariable { component: String, item: String, variable: String },
    #[error("component {component}: `{item}` holds {{podName}}, and the name of the pod is not known")]
    NoPodName { component: String, item: String },
    #[error("component {component}: {source}")]
    Property { component: String, source: InvalidProperty },
    #[error("`{policy}`: {source}")]
    Policy { policy: String, source: InvalidPolicy },
    #[error("`{target}` names {policy:?}, and there is no such policy; known: {known}")]
    UnknownPolicy { target: String, policy: String, known: String },
}

/// Everything that is wrong, one line each; at least one where it is returned as an error.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn push(&mut self, place: Place, problem: impl Into<Problem>) {
        self.0.push(Fault { place, problem: problem.into() });
    }

    /// `value`, if nothing is wrong; else all that is, in the order of the files.
    pub(crate) fn or<T>(mut self, value: T) -> Result<T, Self> {
        self.0.sort_by(|one, other| one.place.cmp(&other.place));
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Fault> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
