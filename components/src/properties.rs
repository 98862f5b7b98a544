//! The metadata of a component after its templates and references were resolved.

use std::collections::BTreeMap;
use std::str::FromStr;

pub use host_abi::secrets::Redacted;

use crate::duration::GoDuration;
use crate::field::{Description, Field, Kind};

const TRUE: [&str; 6] = ["true", "t", "yes", "y", "on", "1"];
const FALSE: [&str; 6] = ["false", "f", "no", "n", "off", "0"];

/// Named values. As in Dapr, the case of a name does not matter, the last of two values of one name counts, an
/// empty value counts as none, and names that a component does not know are ignored.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, Redacted>,
    secrets: Secrets,
}

/// The values that were not written in the manifest, and those of fields for secrets. A text of somebody else's, such
/// as a driver's error, may quote one: an address can be a secret too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<Redacted>);

impl Secrets {
    /// A shorter one is in any text.
    const SHORTEST: usize = 4;

    /// The text with `***` for each.
    pub(crate) fn hidden_in(&self, text: String) -> String {
        let secrets = self.0.iter().map(Redacted::expose).filter(|secret| secret.len() >= Self::SHORTEST);
        let mut secrets: Vec<&str> = secrets.collect();
        // One may be part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text, |text, secret| text.replace(secret, "***"))
    }
}

/// A value that a component cannot use. The value itself is not told: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProperty {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{name}` must be {expected}")]
    Malformed { name: &'static str, expected: &'static str },
    #[error("`{0}` is not supported yet")]
    Unsupported(&'static str),
    #[error("{0}")]
    Other(String),
}

impl Properties {
    pub(crate) fn with_secrets(self, secrets: Vec<Redacted>) -> Self {
        Self { secrets: Secrets(secrets), ..self }
    }

    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What a constructor says of these properties.
    pub(crate) fn hidden_in(&self, error: InvalidProperty) -> InvalidProperty {
        match error {
            InvalidProperty::Other(text) => InvalidProperty::Other(self.secrets.hidden_in(text)),
            named => named,
        }
    }

    /// Hides what is written where a secret belongs as well.
    ///
    /// # Errors
    /// Something is asked for that there is not.
    pub(crate) fn described_by(mut self, descriptions: &[Description]) -> Result<Self, InvalidProperty> {
        for field in descriptions.iter().flat_map(|description| description.fields) {
            match (field.kind, self.written(field)) {
                (Kind::Refused, Some((name, value))) if !is_one_of(&FALSE, value) => {
                    return Err(InvalidProperty::Unsupported(name));
                }
                // Dapr takes it for false: a misspelt `enableTLS` would send passwords in the clear.
                (Kind::Flag, Some((name, value))) if !is_one_of(&TRUE, value) && !is_one_of(&FALSE, value) => {
                    return Err(InvalidProperty::Malformed { name, expected: "`true` or `false`" });
                }
                (Kind::Secret, Some((_, value))) => self.secrets.0.push(value.to_owned().into()),
                _ => {}
            }
        }
        Ok(self)
    }

    /// What is written, or the field's default.
    pub fn text(&self, field: &Field) -> Option<&str> {
        self.named(field).map(|(_, value)| value)
    }

    /// # Errors
    /// There is no such value.
    pub fn required(&self, field: &Field) -> Result<&str, InvalidProperty> {
        self.text(field).ok_or(InvalidProperty::Missing(field.name))
    }

    /// True for what Dapr takes as true: `true`, `t`, `yes`, `y`, `on` and `1`, in any case.
    pub fn flag(&self, field: &Field) -> bool {
        self.text(field).is_some_and(|value| is_one_of(&TRUE, value))
    }

    /// # Errors
    /// The value is not an integer of this type.
    pub fn integer<T: FromStr>(&self, field: &Field) -> Result<Option<T>, InvalidProperty> {
        self.parsed(field, "a whole number", |value| value.parse().ok())
    }

    /// # Errors
    /// The value is not a duration.
    pub fn duration(&self, field: &Field) -> Result<Option<GoDuration>, InvalidProperty> {
        let parse = |value: &str| GoDuration::parse(value, field.kind.unit());
        self.parsed(field, "a duration such as `500ms` or `5s`", parse)
    }

    fn parsed<T>(
        &self,
        field: &Field,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InvalidProperty> {
        let Some((name, value)) = self.named(field) else { return Ok(None) };
        parse(value.trim()).map(Some).ok_or(InvalidProperty::Malformed { name, expected })
    }

    /// With the name that it is written under.
    fn written(&self, field: &Field) -> Option<(&'static str, &str)> {
        field.names().find_map(|name| {
            let value = self.values.get(&name.to_ascii_lowercase())?.expose();
            (!value.is_empty()).then_some((name, value))
        })
    }

    fn named(&self, field: &Field) -> Option<(&'static str, &str)> {
        self.written(field).or(field.default.map(|default| (field.name, default)))
    }
}

fn is_one_of(words: &[&str], value: &str) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(value.trim()))
}

impl<N: AsRef<str>> FromIterator<(N, Redacted)> for Properties {
    fn from_iter<I: IntoIterator<Item = (N, Redacted)>>(pairs: I) -> Self {
        let values = pairs.into_iter().map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value)).collect();
        Self { values, secrets: Secrets::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        pairs.iter().map(|&(name, value)| (name, Redacted::from(value.to_owned()))).collect()
    }

    #[test]
    fn a_value_never_shows_when_printed() {
        let printed = format!("{:?}", properties(&[("redisPassword", "hunter2")]));
        assert!(printed.contains("redispassword") && !printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn secrets_are_hidden_in_texts_the_longest_first() {
        let secrets = Secrets(["hunter2", "hunter2-long", "", "ab"].map(|secret| secret.to_owned().into()).to_vec());
        let text = "ab at hunter2-long:6379 refused hunter2".to_owned();
        assert_eq!(secrets.hidden_in(text), "ab at ***:6379 refused ***");
    }

    #[test]
    fn what_is_written_where_a_secret_belongs_is_hidden_too() {
        const FIELDS: &[Field] = &[Field::text("host", ""), Field::secret("redisPassword", "")];
        let known = [Description { about: "", fields: FIELDS, without_effect: &[] }];
        let properties = properties(&[("host", "server"), ("redisPassword", "hunter2")]).described_by(&known).unwrap();
        assert_eq!(properties.secrets().hidden_in("server: hunter2".to_owned()), "server: ***");
    }

    #[test]
    fn what_there_is_not_is_refused_unless_it_is_switched_off() {
        const FIELDS: &[Field] = &[Field::refused("useEntraID", "")];
        let known = [Description { about: "", fields: FIELDS, without_effect: &[] }];
        let error = |value| properties(&[("useEntraID", value)]).described_by(&known).err();
        assert_eq!((error("false"), error("")), (None, None));
        assert_eq!(error("true"), Some(InvalidProperty::Unsupported("useEntraID")));
    }

    #[test]
    fn names_are_found_in_any_case_and_the_last_value_counts() {
        let properties = properties(&[("redisHost", "a:1"), ("REDISHOST", "b:2"), ("empty", "")]);
        assert_eq!(properties.text(&Field::text("RedisHost", "")), Some("b:2"));
        let empty = Field::text("empty", "");
        assert_eq!(properties.text(&empty), None);
        assert_eq!(properties.required(&empty), Err(InvalidProperty::Missing("empty")));
        assert_eq!(properties.text(&empty.or("default")), Some("default"));
    }

    #[test]
    fn the_first_name_with_a_value_counts_and_is_told() {
        let timeout = Field::seconds("timeout", "").also(&["timeoutInSeconds"]);
        let seconds = |pairs: &[(&str, &str)]| {
            properties(pairs).duration(&timeout).map(|timeout| timeout.and_then(GoDuration::positive))
        };
        let both = seconds(&[("timeoutInSeconds", "3"), ("timeout", "2")]);
        assert_eq!(both, Ok(Some(std::time::Duration::from_secs(2))));
        let error = seconds(&[("timeoutInSeconds", "soon"), ("timeout", "")]).unwrap_err().to_string();
        assert_eq!(error, "`timeoutInSeconds` must be a duration such as `500ms` or `5s`");
    }

    #[test]
    fn a_malformed_value_is_named_but_not_told() {
        let error = properties(&[("redisDB", "hunter2")]).integer::<i64>(&Field::integer("redisDB", "")).unwrap_err();
        assert_eq!(error.to_string(), "`redisDB` must be a whole number");
    }

    #[test]
    fn only_the_words_that_dapr_takes_as_true_are_true() {
        let enable_tls = Field::flag("enableTLS", "");
        for word in TRUE.iter().copied().chain(["True", "T"]) {
            assert!(properties(&[("enableTLS", word)]).flag(&enable_tls), "{word}");
        }
        for word in ["false", "0", "no", "enabled", ""] {
            assert!(!properties(&[("enableTLS", word)]).flag(&enable_tls), "{word}");
        }
    }
}
