//! The metadata of the component, with the defaults and units of Dapr.
//!
//! Source: dapr/components-contrib `common/authentication/sqlite/metadata.go` and
//! `state/sqlite/sqlite_metadata.go`.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::properties::{InvalidProperty, Properties};
use crate::state::sql;

const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Options {
    /// A URI filename, <https://www.sqlite.org/uri.html>.
    pub(super) uri: String,
    pub(super) journal_mode: &'static str,
    pub(super) table: String,
    pub(super) metadata_table: String,
    /// How long a call may take.
    pub(super) timeout: Duration,
    /// How long a statement waits for the lock of another process.
    pub(super) busy_timeout: Duration,
    /// How often expired rows are removed; never by default.
    pub(super) cleanup_interval: Option<Duration>,
}

impl Options {
    pub(super) fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        let connection = properties.text("connectionString").or_else(|| properties.text("url"));
        let connection = connection.ok_or(InvalidProperty::Missing("connectionString"))?;
        if connection.contains("_pragma=") {
            let message = "`_pragma` in `connectionString` is not supported: use `busyTimeout` and `disableWAL`";
            return Err(InvalidProperty::Other(message.to_owned()));
        }
        let is_uri = connection.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
        let in_memory = connection[if is_uri { 5 } else { 0 }..].to_ascii_lowercase().starts_with(":memory:");
        let busy_timeout = properties.duration("busyTimeout", sql::BARE_UNIT)?;
        Ok(Self {
            uri: if is_uri { connection.to_owned() } else { format!("file:{connection}") },
            journal_mode: match () {
                () if in_memory => "MEMORY",
                () if properties.flag("disableWAL") => "DELETE",
                () => "WAL",
            },
            table: identifier(properties, "tableName", "state")?,
            metadata_table: identifier(properties, "metadataTableName", "metadata")?,
            timeout: sql::timeout(properties)?,
            busy_timeout: match busy_timeout {
                None => DEFAULT_BUSY_TIMEOUT,
                Some(timeout) => timeout.positive().unwrap_or_default(),
            },
            cleanup_interval: sql::cleanup_interval(properties)?.and_then(GoDuration::positive),
        })
    }
}

fn identifier(properties: &Properties, name: &'static str, default: &'static str) -> Result<String, InvalidProperty> {
    let identifier = properties.text(name).unwrap_or(default);
    if identifier.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(identifier.to_owned())
    } else {
        Err(InvalidProperty::Malformed { name, expected: "of letters, digits and `_`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, InvalidProperty> {
        let file = [("connectionString", "data.db")];
        let pairs = file.iter().chain(pairs);
        Options::new(&pairs.map(|&(name, value)| (name, value.to_owned().into())).collect())
    }

    #[test]
    fn the_defaults_are_daprs() {
        let options = options(&[]).unwrap();
        assert_eq!((options.uri.as_str(), options.journal_mode), ("file:data.db", "WAL"));
        assert_eq!((options.table.as_str(), options.metadata_table.as_str()), ("state", "metadata"));
        assert_eq!((options.timeout, options.busy_timeout), (Duration::from_secs(20), Duration::from_secs(2)));
        assert_eq!(options.cleanup_interval, None);
    }

    #[test]
    fn a_bare_integer_is_seconds() {
        let options = options(&[("timeoutInSeconds", "30"), ("cleanupInterval", "60"), ("busyTimeout", "-1")]).unwrap();
        assert_eq!(options.timeout, Duration::from_secs(30));
        assert_eq!(options.cleanup_interval, Some(Duration::from_secs(60)));
        assert_eq!(options.busy_timeout, Duration::ZERO);
    }

    #[test]
    fn the_journal_is_a_write_ahead_log_unless_that_cannot_be() {
        let mode = |pairs: &[(&str, &str)]| options(pairs).unwrap().journal_mode;
        assert_eq!(mode(&[("disableWAL", "true")]), "DELETE");
        assert_eq!(mode(&[("connectionString", ":memory:")]), "MEMORY");
        assert_eq!(mode(&[("connectionString", "file::memory:?cache=shared")]), "MEMORY");
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        assert_eq!(options(&[("connectionString", "")]).err(), Some(InvalidProperty::Missing("connectionString")));
        for (name, value) in [
            ("tableName", "state; DROP TABLE state"),
            ("metadataTableName", "a b"),
            ("timeout", "500ms"),
            ("timeout", "soon"),
            ("connectionString", "data.db?_pragma=journal_mode(OFF)"),
        ] {
            let error = options(&[(name, value)]).err().expect(name).to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
