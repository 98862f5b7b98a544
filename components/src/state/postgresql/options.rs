//! What the metadata of the component comes to.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::connection_string::{Parameters, cannot_be_used};
use super::fields;
use super::tls::{Roots, SslMode, Tls};
use crate::duration::GoDuration;
use crate::field::Field;
use crate::properties::{InvalidProperty, Properties};
use crate::state::sql;

const FEWEST_CONNECTIONS: usize = 4;

pub(super) struct Options {
    pub(super) config: Config,
    pub(super) tls: Tls,
    /// The state table is called `state`, after this.
    pub(super) table_prefix: String,
    pub(super) metadata_table: String,
    /// How long a call may take.
    pub(super) timeout: Duration,
    pub(super) max_connections: usize,
    /// How long a connection is kept that nobody uses.
    pub(super) max_idle_time: Duration,
    /// How often expired rows are removed, if ever.
    pub(super) cleanup_interval: Option<Duration>,
    /// Whether statements are prepared once for each connection, or sent anew with every call.
    pub(super) prepares: bool,
}

impl Options {
    pub(super) fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        let mut parameters = parameters(properties)?;
        let tls = tls(&mut parameters)?;
        let pool_size = pool_size(&mut parameters)?;
        let config = parameters.into_config()?;
        let over_tcp = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
        let table_prefix = properties.text(&fields::TABLE_PREFIX).unwrap_or_default();
        check_identifier(&fields::TABLE_PREFIX, &format!("{table_prefix}state"))?;
        let metadata_table = properties.required(&fields::METADATA_TABLE_NAME)?;
        check_identifier(&fields::METADATA_TABLE_NAME, metadata_table)?;
        let max_connections = properties.integer::<i64>(&fields::MAX_CONNS)?;
        let max_connections = max_connections.and_then(|count| usize::try_from(count).ok()).filter(|&count| count > 0);
        let max_idle_time = properties.duration(&fields::MAX_IDLE_TIME)?.and_then(GoDuration::positive);
        Ok(Self {
            config,
            // As libpq: there is no TLS on Unix sockets, whatever the mode.
            tls: if over_tcp { tls } else { Tls { mode: SslMode::Disable, ..tls } },
            table_prefix: table_prefix.to_owned(),
            metadata_table: metadata_table.to_owned(),
            timeout: sql::timeout(properties)?,
            max_connections: max_connections.or(pool_size).unwrap_or_else(default_max_connections),
            max_idle_time: max_idle_time.or(fields::MAX_IDLE_TIME.default_duration()).unwrap_or_default(),
            cleanup_interval: properties.duration(&fields::CLEANUP_INTERVAL)?.and_then(GoDuration::positive),
            prepares: prepares(properties)?,
        })
    }

    /// For messages: `host:port`, of every host that there is.
    pub(super) fn address(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", ports.get(index).or(ports.first()).unwrap_or(&5432)),
            Host::Unix(folder) => folder.display().to_string(),
        });
        hosts.collect::<Vec<_>>().join(",")
    }
}

/// The connection string, and what stands in its place or overrides it.
fn parameters(properties: &Properties) -> Result<Parameters, InvalidProperty> {
    const OVERRIDES: [(&Field, &str); 7] = [
        (&fields::HOST, "host"),
        (&fields::HOSTADDR, "hostaddr"),
        (&fields::PORT, "port"),
        (&fields::DATABASE, "dbname"),
        (&fields::USER, "user"),
        (&fields::PASSWORD, "password"),
        (&fields::SSL_ROOT_CERT, "sslrootcert"),
    ];
    let text = properties.text(&fields::CONNECTION_STRING);
    if text.is_none() && OVERRIDES.iter().all(|(field, _)| properties.text(field).is_none()) {
        return Err(InvalidProperty::Missing(fields::CONNECTION_STRING.name));
    }
    let mut parameters = Parameters::parse(text.unwrap_or_default())?;
    for (field, keyword) in OVERRIDES {
        if let Some(value) = properties.text(field) {
            parameters.set(keyword, value.to_owned());
        }
    }
    Ok(parameters)
}

fn tls(parameters: &mut Parameters) -> Result<Tls, InvalidProperty> {
    let mode = parameters.take("sslmode").map_or(Some(SslMode::Prefer), |mode| SslMode::parse(&mode));
    let mut file = |keyword| parameters.take(keyword).map(PathBuf::from);
    let root_certificate = file("sslrootcert");
    let identity = match (file("sslcert"), file("sslkey")) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err(InvalidProperty::Other("`sslcert` and `sslkey` go together".to_owned())),
    };
    let mode = mode.ok_or_else(|| cannot_be_used("sslmode"))?;
    Ok(Tls { mode, roots: Roots::of(mode, root_certificate), identity })
}

/// How many connections there may be, as the connection string has it.
fn pool_size(parameters: &mut Parameters) -> Result<Option<usize>, InvalidProperty> {
    let keyword = "pool_max_conns";
    let Some(text) = parameters.take(keyword) else { return Ok(None) };
    text.parse().ok().filter(|&size| size > 0).map(Some).ok_or_else(|| cannot_be_used(keyword))
}

/// A name that PostgreSQL takes without quotes, perhaps after that of a schema.
fn check_identifier(field: &Field, identifier: &str) -> Result<(), InvalidProperty> {
    let is_name = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if identifier.splitn(2, '.').all(is_name) {
        return Ok(());
    }
    let expected = "of letters, digits and `_`, no digit first, after `schema.` if need be";
    Err(InvalidProperty::Malformed { name: field.name, expected })
}

fn default_max_connections() -> usize {
    thread::available_parallelism().map_or(FEWEST_CONNECTIONS, |cores| cores.get().max(FEWEST_CONNECTIONS))
}

/// Dapr's other modes differ in how Go's driver finds out types, which are known here.
fn prepares(properties: &Properties) -> Result<bool, InvalidProperty> {
    const MODES: &str = "`cache_statement`, `cache_describe`, `describe_exec`, `exec` or `simple_protocol`";
    match properties.required(&fields::QUERY_EXEC_MODE)? {
        "cache_statement" => Ok(true),
        "cache_describe" | "describe_exec" | "exec" | "simple_protocol" => Ok(false),
        _ => Err(InvalidProperty::Malformed { name: fields::QUERY_EXEC_MODE.name, expected: MODES }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, InvalidProperty> {
        let host = [("connectionString", "host=db user=me password=secret")];
        let pairs = host.iter().chain(pairs);
        Options::new(&pairs.map(|&(name, value)| (name, value.to_owned().into())).collect())
    }

    #[test]
    fn the_defaults_are_daprs() {
        let options = options(&[]).unwrap();
        assert_eq!((options.table_prefix.as_str(), options.metadata_table.as_str()), ("", "dapr_metadata"));
        assert_eq!((options.timeout, options.max_idle_time), (Duration::from_secs(20), Duration::from_secs(1800)));
        assert_eq!((options.cleanup_interval, options.prepares), (Some(Duration::from_secs(3600)), true));
        assert!(options.max_connections >= 4 && options.tls.mode == SslMode::Prefer);
        assert_eq!(options.address(), "db:5432");
    }

    #[test]
    fn a_property_overrides_the_connection_string_or_stands_for_it() {
        let given = options(&[("port", "6432"), ("user", "other"), ("database", "app")]).unwrap();
        assert_eq!((given.config.get_user(), given.config.get_dbname()), (Some("other"), Some("app")));
        assert_eq!(given.address(), "db:6432");
        let alone = options(&[("connectionString", ""), ("host", "elsewhere"), ("password", "it's")]).unwrap();
        assert_eq!((alone.address().as_str(), alone.config.get_password()), ("elsewhere:5432", Some(&b"it's"[..])));
        assert_eq!(options(&[("connectionString", "")]).err(), Some(InvalidProperty::Missing("connectionString")));
        assert_eq!(options(&[("url", "host=ignored")]).unwrap().address(), "db:5432");
    }

    #[test]
    fn durations_and_counts_are_read_as_dapr_reads_them() {
        let interval = |value| options(&[("cleanupInterval", value)]).unwrap().cleanup_interval;
        assert_eq!((interval("60"), interval("0"), interval("-1")), (Some(Duration::from_secs(60)), None, None));
        let some = options(&[("timeoutInSeconds", "30"), ("connectionMaxIdleTime", "5m"), ("maxConns", "1")]).unwrap();
        assert_eq!((some.timeout, some.max_idle_time), (Duration::from_secs(30), Duration::from_secs(300)));
        assert_eq!(some.max_connections, 1);
        let pool = ("connectionString", "host=db pool_max_conns=7");
        assert_eq!(options(&[pool]).unwrap().max_connections, 7);
        assert_eq!(options(&[pool, ("maxConns", "3")]).unwrap().max_connections, 3);
        assert!(options(&[("maxConns", "0")]).unwrap().max_connections >= 4);
    }

    #[test]
    fn tables_may_be_in_a_schema() {
        for (name, value) in [("tablePrefix", "my_"), ("tablePrefix", "apps.my_"), ("tablePrefix", "apps.")] {
            assert_eq!(options(&[(name, value)]).unwrap().table_prefix, value);
        }
        assert_eq!(options(&[("metadataTableName", "public.m1")]).unwrap().metadata_table, "public.m1");
    }

    #[test]
    fn there_is_no_tls_on_a_unix_socket() {
        let tls = options(&[("connectionString", "host=/run/postgresql sslmode=verify-full")]).unwrap().tls;
        assert!(tls.mode == SslMode::Disable);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (name, value) in [
            ("tablePrefix", "1"),
            ("tablePrefix", "x; DROP TABLE state; --"),
            ("tablePrefix", "a.b.c"),
            ("metadataTableName", "public."),
            ("timeout", "500ms"),
            ("queryExecMode", "fast"),
            ("maxConns", "many"),
            ("connectionString", "host=db sslpassword=secret"),
        ] {
            let error = options(&[(name, value)]).err().expect(name).to_string();
            assert!(error.contains(name) && !error.contains("secret"), "{error}");
        }
        for keyword in ["sslmode=often", "sslcert=/only/one", "pool_max_conns=0"] {
            let error = options(&[("connectionString", keyword)]).err().expect(keyword).to_string();
            assert!(error.contains(&keyword[..7]), "{error}");
        }
    }
}
