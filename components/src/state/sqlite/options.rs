//! The metadata of the component, with the defaults and units of Dapr.
//!
//! Source: dapr/components-contrib `common/authentication/sqlite/metadata.go` and
//! `state/sqlite/sqlite_metadata.go`.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::field::{Field, fields};
use crate::properties::{InvalidProperty, Properties};
use crate::state::sql;

fields! {
    pub(super) FIELDS {
        CONNECTION_STRING = Field::text(
            "connectionString",
            "the file, as a path or a [URI](https://www.sqlite.org/uri.html); `:memory:` keeps the data in memory. \
             `_pragma` in it is refused",
        ).also(&["url"]).required();
        TABLE_NAME = Field::text("tableName", "the table of the values").or("state");
        METADATA_TABLE_NAME = Field::text("metadataTableName", "the table of what was migrated and cleaned up").or("metadata");
        TIMEOUT = sql::TIMEOUT;
        BUSY_TIMEOUT = Field::seconds(
            "busyTimeout",
            "how long a call waits for a database that another process has locked; zero and below: not at all",
        ).or("2s");
        DISABLE_WAL = Field::flag("disableWAL", "`true`: no write-ahead log, for file systems of a network");
        CLEANUP_INTERVAL = sql::CLEANUP_INTERVAL.or("0s");
    }
}

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
        let connection = properties.required(&CONNECTION_STRING)?;
        if connection.contains("_pragma=") {
            let message = "`_pragma` in `connectionString` is not supported: use `busyTimeout` and `disableWAL`";
            return Err(InvalidProperty::Other(message.to_owned()));
        }
        let is_uri = connection.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:"));
        let in_memory = connection[if is_uri { 5 } else { 0 }..].to_ascii_lowercase().starts_with(":memory:");
        let positive = |field| properties.duration(field).map(|duration| duration.and_then(GoDuration::positive));
        Ok(Self {
            uri: if is_uri { connection.to_owned() } else { format!("file:{connection}") },
            journal_mode: match () {
                () if in_memory => "MEMORY",
                () if properties.flag(&DISABLE_WAL) => "DELETE",
                () => "WAL",
            },
            table: identifier(properties, &TABLE_NAME)?,
            metadata_table: identifier(properties, &METADATA_TABLE_NAME)?,
            timeout: sql::timeout(properties)?,
            busy_timeout: positive(&BUSY_TIMEOUT)?.unwrap_or_default(),
            cleanup_interval: positive(&CLEANUP_INTERVAL)?,
        })
    }
}

fn identifier(properties: &Properties, field: &Field) -> Result<String, InvalidProperty> {
    let identifier = properties.required(field)?;
    if identifier.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(identifier.to_owned())
    } else {
        Err(InvalidProperty::Malformed { name: field.name, expected: "of letters, digits and `_`" })
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
