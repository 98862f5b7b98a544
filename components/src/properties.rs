//! The metadata of a component after its templates and references were resolved.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

pub use host_abi::secrets::Redacted;

use crate::duration::GoDuration;

/// Named values. As in Dapr, the case of a name does not matter, the last of two values of one name counts, an
/// empty value counts as none, and names that a component does not know are ignored.
#[derive(Clone, Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, Redacted>,
    secrets: Secrets,
}

/// The values that were not written in the manifest. A text of somebody else's, such as a driver's error, may quote
/// one: an address can be a secret too.
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

    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.values.get(&name.to_ascii_lowercase())?.expose();
        (!value.is_empty()).then_some(value)
    }

    /// # Errors
    /// There is no such value.
    pub fn required(&self, name: &'static str) -> Result<&str, InvalidProperty> {
        self.text(name).ok_or(InvalidProperty::Missing(name))
    }

    /// True for what Dapr takes as true: `true`, `t`, `yes`, `y`, `on` and `1`, in any case.
    pub fn flag(&self, name: &str) -> bool {
        const TRUE: [&str; 6] = ["true", "t", "yes", "y", "on", "1"];
        let value = self.text(name).unwrap_or_default().trim();
        TRUE.iter().any(|word| word.eq_ignore_ascii_case(value))
    }

    /// # Errors
    /// The value is not an integer of this type.
    pub fn integer<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, InvalidProperty> {
        let malformed = |_| InvalidProperty::Malformed { name, expected: "a whole number" };
        self.text(name).map(|value| value.trim().parse().map_err(malformed)).transpose()
    }

    /// `bare_unit` is what an integer without a unit counts.
    ///
    /// # Errors
    /// The value is not a duration.
    pub fn duration(&self, name: &'static str, bare_unit: Duration) -> Result<Option<GoDuration>, InvalidProperty> {
        let malformed = InvalidProperty::Malformed { name, expected: "a duration such as `500ms` or `5s`" };
        let parse = |value: &str| GoDuration::parse(value.trim(), bare_unit).ok_or(malformed);
        self.text(name).map(parse).transpose()
    }
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
    fn names_are_found_in_any_case_and_the_last_value_counts() {
        let properties = properties(&[("redisHost", "a:1"), ("REDISHOST", "b:2"), ("empty", "")]);
        assert_eq!(properties.text("RedisHost"), Some("b:2"));
        assert_eq!(properties.text("empty"), None);
        assert_eq!(properties.required("empty"), Err(InvalidProperty::Missing("empty")));
    }

    #[test]
    fn a_malformed_value_is_named_but_not_told() {
        let error = properties(&[("redisDB", "hunter2")]).integer::<i64>("redisDB").unwrap_err();
        assert_eq!(error.to_string(), "`redisDB` must be a whole number");
    }

    #[test]
    fn only_the_words_that_dapr_takes_as_true_are_true() {
        for word in ["true", "True", "T", "yes", "y", "on", "1"] {
            assert!(properties(&[("enableTLS", word)]).flag("enableTLS"), "{word}");
        }
        for word in ["false", "0", "no", "enabled", ""] {
            assert!(!properties(&[("enableTLS", word)]).flag("enableTLS"), "{word}");
        }
    }
}
