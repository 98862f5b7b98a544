//! The metadata of the component, with the defaults and units of Dapr.
//!
//! Source: dapr/components-contrib `common/component/redis/settings.go`.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::properties::{InvalidProperty, Properties};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_MAX_RETRIES: u32 = 3;
/// What an integer without a unit counts.
const BARE_UNIT: Duration = Duration::from_millis(1);

pub(super) struct Options {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
    pub(super) dial_timeout: Duration,
    /// From the first byte written to the last byte of the answer; none waits for ever. Commands of many guests
    /// share one connection, so that `readTimeout` and `writeTimeout` cannot be told apart: the longer counts.
    pub(super) response_timeout: Option<Duration>,
    pub(super) max_retries: u32,
}

impl Options {
    pub(super) fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        refuse_unsupported(properties)?;
        let (host, port) = address(properties)?;
        let timeout = |name| properties.duration(name, BARE_UNIT);
        let dial_timeout = timeout("dialTimeout")?.and_then(GoDuration::positive);
        let read_timeout = timeout_or(timeout("readTimeout")?, Some(DEFAULT_READ_TIMEOUT));
        let write_timeout = timeout_or(timeout("writeTimeout")?, read_timeout);
        let max_retries = match properties.integer::<i64>("redisMaxRetries")?.unwrap_or_default() {
            0 => DEFAULT_MAX_RETRIES,
            retries => u32::try_from(retries).unwrap_or_default(),
        };
        Ok(Self {
            host,
            port,
            username: properties.text("redisUsername").map(str::to_owned),
            password: properties.text("redisPassword").map(str::to_owned),
            database: properties.integer("redisDB")?.unwrap_or_default(),
            dial_timeout: dial_timeout.unwrap_or(DEFAULT_DIAL_TIMEOUT),
            response_timeout: read_timeout.zip(write_timeout).map(|(read, write)| read.max(write)),
            max_retries,
        })
    }
}

/// As Dapr's client reads one: absent or zero is the default, below zero is none at all.
fn timeout_or(timeout: Option<GoDuration>, default: Option<Duration>) -> Option<Duration> {
    match timeout {
        Some(GoDuration::Negative) => None,
        Some(GoDuration::NonNegative(timeout)) if !timeout.is_zero() => Some(timeout),
        _ => default,
    }
}

fn refuse_unsupported(properties: &Properties) -> Result<(), InvalidProperty> {
    for name in ["enableTLS", "failover", "useEntraID", "useAzureAD", "useOIDC"] {
        if properties.flag(name) {
            return Err(InvalidProperty::Unsupported(name));
        }
    }
    if properties.text("sentinelMasterName").is_some() {
        return Err(InvalidProperty::Unsupported("sentinelMasterName"));
    }
    match properties.text("redisType") {
        None | Some("node") => Ok(()),
        Some(kind) if kind.eq_ignore_ascii_case("cluster") => {
            Err(InvalidProperty::Other("`redisType: cluster` is not supported yet".to_owned()))
        }
        Some(_) => Err(InvalidProperty::Malformed { name: "redisType", expected: "`node`" }),
    }
}

/// `redisHost` with its port, else `redisPort`, else 6379. A host in brackets is an IPv6 address.
fn address(properties: &Properties) -> Result<(String, u16), InvalidProperty> {
    let written = properties.required("redisHost")?;
    if written.contains(',') {
        return Err(InvalidProperty::Other("several addresses in `redisHost` are not supported yet".to_owned()));
    }
    let other_port = properties.integer::<u16>("redisPort")?.filter(|&port| port != 0);
    let malformed = InvalidProperty::Malformed { name: "redisHost", expected: "`host:port`" };
    let (host, port) = match written.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host, Some(port.parse().map_err(|_| malformed.clone())?))
        }
        _ => (written, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match (port, other_port) {
        _ if host.is_empty() => Err(malformed),
        (Some(port), Some(other)) if port != other => {
            Err(InvalidProperty::Other("`redisHost` and `redisPort` name different ports".to_owned()))
        }
        (port, other) => Ok((host.to_owned(), port.or(other).unwrap_or(DEFAULT_PORT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, InvalidProperty> {
        let host = [("redisHost", "localhost")];
        let pairs = host.iter().chain(pairs);
        Options::new(&pairs.map(|&(name, value)| (name, value.to_owned().into())).collect())
    }

    fn address(pairs: &[(&str, &str)]) -> (String, u16) {
        options(pairs).map(|options| (options.host, options.port)).unwrap()
    }

    #[test]
    fn the_defaults_are_daprs() {
        let options = options(&[]).unwrap();
        assert_eq!((options.host.as_str(), options.port, options.database), ("localhost", 6379, 0));
        assert_eq!(options.dial_timeout, Duration::from_secs(5));
        assert_eq!(options.response_timeout, Some(Duration::from_secs(3)));
        assert_eq!(options.max_retries, 3);
    }

    #[test]
    fn the_port_comes_with_the_host_or_by_itself() {
        assert_eq!(address(&[("redisHost", "redis:7000")]), ("redis".into(), 7000));
        assert_eq!(address(&[("redisPort", "7001")]), ("localhost".into(), 7001));
        assert_eq!(address(&[("redisHost", "[::1]:7002")]), ("::1".into(), 7002));
        assert_eq!(address(&[("redisHost", "::1")]), ("::1".into(), 6379));
        assert!(options(&[("redisHost", "redis:7000"), ("redisPort", "7001")]).is_err());
        assert!(options(&[("redisHost", "redis:port")]).is_err());
        assert!(options(&[("redisHost", "")]).is_err());
    }

    #[test]
    fn a_bare_integer_is_milliseconds() {
        let options = options(&[("dialTimeout", "250"), ("readTimeout", "1500")]).unwrap();
        assert_eq!(options.dial_timeout, Duration::from_millis(250));
        assert_eq!(options.response_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn the_longer_of_read_and_write_timeout_counts_and_below_zero_is_none() {
        let timeout = |pairs: &[(&str, &str)]| options(pairs).unwrap().response_timeout;
        assert_eq!(timeout(&[("writeTimeout", "10s")]), Some(Duration::from_secs(10)));
        assert_eq!(timeout(&[("readTimeout", "0")]), Some(Duration::from_secs(3)));
        assert_eq!(timeout(&[("readTimeout", "-1")]), None);
        assert_eq!(timeout(&[("writeTimeout", "-1")]), None);
    }

    #[test]
    fn retries_are_counted_as_daprs_client_counts_them() {
        let retries = |count| options(&[("redisMaxRetries", count)]).unwrap().max_retries;
        assert_eq!((retries("0"), retries("7"), retries("-1")), (3, 7, 0));
    }

    #[test]
    fn what_is_not_supported_yet_is_named() {
        for (name, value) in [
            ("enableTLS", "true"),
            ("failover", "true"),
            ("sentinelMasterName", "mymaster"),
            ("redisType", "cluster"),
            ("useEntraID", "true"),
            ("redisHost", "a:1,b:2"),
        ] {
            let error = options(&[(name, value)]).err().expect(name).to_string();
            assert!(error.contains(name) && error.contains("not supported yet"), "{error}");
        }
        assert!(options(&[("enableTLS", "false"), ("failover", "false"), ("redisType", "node")]).is_ok());
    }
}
