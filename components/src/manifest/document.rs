//! The documents of a YAML file, and the shape of a Component among them.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};

use super::any_case::AnyCase;
use super::{Manifest, Place};
use crate::configuration::Configuration;
use crate::duration::GoDuration;
use crate::properties::Redacted;
use crate::resiliency;

const DEFAULT_INIT_TIMEOUT: Duration = Duration::from_secs(5);

/// One document of a file, from its first line that is not a comment.
pub(super) struct Document<'a> {
    /// Within the file, from 1, as is the line.
    pub(super) number: usize,
    pub(super) line: usize,
    text: &'a str,
}

/// A document by its kind.
pub(super) enum Resource {
    Component(Component),
    Configuration(Configuration),
    Resiliency(resiliency::Document),
    /// As `kubectl get -o yaml` writes several.
    List,
    /// Of Dapr's, with its kind.
    WithoutEffect(&'static str),
    Other,
}

pub(super) struct SyntaxError {
    /// Within the file.
    pub(super) line: Option<usize>,
    pub(super) message: String,
}

/// Splits at the lines that begin with `---`, so that a document that is no YAML does not hide the next one.
/// Documents of nothing but comments do not count.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents: Vec<Document<'_>> = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut add = |open: Option<(usize, usize)>, end: usize| {
        if let Some((line, start)) = open {
            documents.push(Document { number: documents.len() + 1, line, text: &text[start..end] });
        }
    };
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = match separated(line) {
            Some(rest) => {
                add(open.take(), offset);
                rest
            }
            None => line,
        };
        let is_comment = content.trim_start().is_empty() || content.trim_start().starts_with('#');
        if open.is_none() && !is_comment {
            open = Some((index + 1, offset));
        }
        offset += line.len();
    }
    add(open, offset);
    documents
}

/// What follows the `---` of a line that begins a document.
fn separated(line: &str) -> Option<&str> {
    line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

impl Document<'_> {
    pub(super) fn parse(&self) -> Result<Resource, SyntaxError> {
        let head: Head = self.read()?;
        if head.api_version.is_some_and(|version| !version.starts_with("dapr.io/")) {
            return Ok(if head.kind.as_deref() == Some("List") { Resource::List } else { Resource::Other });
        }
        match head.kind.as_deref() {
            Some("ComponentList" | "ConfigurationList" | "ResiliencyList") => Ok(Resource::List),
            Some("Component") => self.read().map(Resource::Component),
            Some("Configuration") => self.read().map(Resource::Configuration),
            Some("Resiliency") => self.read().map(Resource::Resiliency),
            Some("Subscription") => Ok(Resource::WithoutEffect("Subscription")),
            Some("HTTPEndpoint") => Ok(Resource::WithoutEffect("HTTPEndpoint")),
            _ => Ok(Resource::Other),
        }
    }

    fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, SyntaxError> {
        let document = AnyCase(serde_yaml::Deserializer::from_str(self.text));
        T::deserialize(document).map_err(|error| SyntaxError {
            line: error.location().map(|location| self.line + location.line() - 1),
            message: without_value(&error.to_string()),
        })
    }
}

/// The parser's message without the value it quotes, lest somebody who writes a password where a mapping belongs
/// finds it in a log, and without the position it ends in, which counts from the document's beginning.
fn without_value(message: &str) -> String {
    let without_position = |text: &str| text.split(" at line ").next().unwrap_or_default().to_owned();
    for found in ["invalid type: ", "invalid value: "] {
        let Some((before, after)) = message.split_once(found) else { continue };
        let Some((value, expected)) = after.rsplit_once(", expected ") else { continue };
        let kind = value.split([' ', '`', '"']).next().unwrap_or_default();
        return format!("{before}{found}{kind}, expected {}", without_position(expected));
    }
    without_position(message)
}

/// Others than Dapr have Components and Configurations too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct Component {
    metadata: ObjectMeta,
    spec: Spec,
    auth: Option<Auth>,
    scopes: Option<Vec<String>>,
}

impl Component {
    pub(super) fn at(self, place: Place) -> Manifest {
        let Spec { component_type, version, ignore_errors, init_timeout, metadata } = self.spec;
        let init_timeout = GoDuration::parse(init_timeout.0.expose(), Duration::from_secs(1));
        Manifest {
            place,
            name: self.metadata.name,
            namespace: self.metadata.namespace.unwrap_or_default(),
            component_type,
            version: version.unwrap_or_default(),
            ignore_errors: ignore_errors.unwrap_or_default(),
            init_timeout: init_timeout.and_then(GoDuration::positive).unwrap_or(DEFAULT_INIT_TIMEOUT),
            scopes: self.scopes.unwrap_or_default(),
            secret_store: self.auth.and_then(|auth| auth.secret_store).filter(|store| !store.is_empty()),
            items: metadata.unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a mapping")]
struct ObjectMeta {
    #[serde(default)]
    name: String,
    namespace: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
struct Spec {
    #[serde(rename = "type")]
    component_type: String,
    version: Option<String>,
    ignore_errors: Option<bool>,
    #[serde(default)]
    init_timeout: Scalar,
    metadata: Option<Vec<Item>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
struct Auth {
    secret_store: Option<String>,
}

/// One entry of `spec.metadata`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
pub(super) struct Item {
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: Scalar,
    secret_key_ref: Option<SecretKeyRef>,
    env_ref: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "a mapping")]
pub(super) struct SecretKeyRef {
    #[serde(default)]
    pub(super) name: String,
    key: Option<String>,
}

impl SecretKeyRef {
    pub(super) fn key(&self) -> &str {
        self.key.as_deref().filter(|key| !key.is_empty()).unwrap_or(&self.name)
    }
}

/// Where the value of an item comes from.
pub(super) enum ValueSource<'a> {
    Written,
    Variable(&'a str),
    Secret(&'a SecretKeyRef),
}

impl Item {
    pub(super) fn is_reference(&self) -> bool {
        !matches!(self.source(), ValueSource::Written)
    }

    /// A variable counts where no value is written, a secret in the place of one that is.
    pub(super) fn source(&self) -> ValueSource<'_> {
        let variable = self.env_ref.as_deref().filter(|name| !name.is_empty());
        let secret = self.secret_key_ref.as_ref().filter(|reference| !reference.name.is_empty());
        match (variable, secret) {
            (Some(variable), _) if self.value.0.expose().is_empty() => ValueSource::Variable(variable),
            (_, Some(reference)) => ValueSource::Secret(reference),
            _ => ValueSource::Written,
        }
    }
}

/// Any scalar, taken as a string; null is empty.
#[derive(Debug, Default)]
pub(crate) struct Scalar(pub(super) Redacted);

impl Scalar {
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar(value.to_owned().into()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Scalar, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Scalar, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Scalar, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Scalar, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Scalar, E> {
        Ok(Scalar::default())
    }
}
