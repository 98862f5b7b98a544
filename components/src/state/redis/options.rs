//! What the metadata of the component comes to.
//!
//! Source: dapr/components-contrib `common/component/redis/settings.go`, `redis.go` and `v9client.go`.

use std::time::Duration;

use redis::RedisConnectionInfo;

use super::address::Address;
use super::dialler::Dialler;
use super::{fields, tls};
use crate::duration::GoDuration;
use crate::field::Field;
use crate::properties::{InvalidProperty, Properties};
use crate::state::ttl::{self, Ttl};

pub(super) struct Options {
    /// At least one; of servers, or of sentinels.
    pub(super) addresses: Vec<Address>,
    pub(super) discovery: Discovery,
    /// For servers, not for sentinels.
    pub(super) dialler: Dialler,
    pub(super) retries: Retries,
    /// Of values whose request does not say.
    pub(super) default_ttl: Option<Ttl>,
}

/// Who is asked where the servers are.
#[derive(Clone)]
pub(super) enum Discovery {
    None,
    Cluster,
    Sentinels { master: String, login: RedisConnectionInfo },
}

#[derive(Clone, Copy)]
pub(super) struct Retries {
    pub(super) most: u32,
    pub(super) shortest_pause: Duration,
    pub(super) longest_pause: Duration,
}

impl Options {
    pub(super) fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        let discovery = discovery(properties)?;
        let addresses = Address::list(properties)?;
        if matches!(discovery, Discovery::None) && addresses.len() > 1 {
            let message = "several addresses in `redisHost` need `redisType: cluster` or `failover: true`";
            return Err(InvalidProperty::Other(message.to_owned()));
        }
        let database = match discovery {
            Discovery::Cluster => 0,
            _ => properties.integer(&fields::DATABASE)?.unwrap_or_default(),
        };
        let read_timeout = timeout_or(properties, &fields::READ_TIMEOUT, fields::READ_TIMEOUT.default_duration())?;
        let write_timeout = timeout_or(properties, &fields::WRITE_TIMEOUT, read_timeout)?;
        let dial_timeout = properties.duration(&fields::DIAL_TIMEOUT)?.and_then(GoDuration::positive);
        let dialler = Dialler {
            login: login(properties, &fields::USERNAME, &fields::PASSWORD).set_db(database),
            tls: tls::connector(properties)?,
            timeout: dial_timeout.or(fields::DIAL_TIMEOUT.default_duration()).unwrap_or_default(),
            response_timeout: read_timeout.zip(write_timeout).map(|(read, write)| read.max(write)),
        };
        Ok(Self {
            addresses,
            discovery,
            dialler,
            retries: Retries::new(properties)?,
            default_ttl: default_ttl(properties)?,
        })
    }
}

impl Retries {
    fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        let most = match properties.integer::<i64>(&fields::MAX_RETRIES)? {
            Some(0) => Properties::default().integer(&fields::MAX_RETRIES)?,
            most => most,
        };
        let pause = |field: &Field| -> Result<Duration, InvalidProperty> {
            Ok(timeout_or(properties, field, field.default_duration())?.unwrap_or_default())
        };
        Ok(Self {
            most: most.and_then(|most| u32::try_from(most).ok()).unwrap_or_default(),
            shortest_pause: pause(&fields::MIN_RETRY_INTERVAL)?,
            longest_pause: pause(&fields::MAX_RETRY_INTERVAL)?,
        })
    }
}

fn default_ttl(properties: &Properties) -> Result<Option<Ttl>, InvalidProperty> {
    let parse = |text| {
        let malformed = InvalidProperty::Malformed { name: fields::DEFAULT_TTL.name, expected: ttl::EXPECTED };
        Ttl::parse(text).ok_or(malformed)
    };
    properties.text(&fields::DEFAULT_TTL).map(parse).transpose()
}

/// As Dapr's client reads one: absent or zero is the default, below zero is none at all.
fn timeout_or(
    properties: &Properties,
    field: &Field,
    default: Option<Duration>,
) -> Result<Option<Duration>, InvalidProperty> {
    Ok(match properties.duration(field)? {
        Some(GoDuration::Negative) => None,
        timeout => timeout.and_then(GoDuration::positive).or(default),
    })
}

fn discovery(properties: &Properties) -> Result<Discovery, InvalidProperty> {
    if properties.flag(&fields::FAILOVER) {
        let master = properties.required(&fields::SENTINEL_MASTER_NAME)?.to_owned();
        let login = login(properties, &fields::SENTINEL_USERNAME, &fields::SENTINEL_PASSWORD);
        return Ok(Discovery::Sentinels { master, login });
    }
    match properties.required(&fields::TYPE)? {
        kind if kind.eq_ignore_ascii_case("node") => Ok(Discovery::None),
        kind if kind.eq_ignore_ascii_case("cluster") => Ok(Discovery::Cluster),
        _ => Err(InvalidProperty::Malformed { name: fields::TYPE.name, expected: "`node` or `cluster`" }),
    }
}

fn login(properties: &Properties, username: &Field, password: &Field) -> RedisConnectionInfo {
    let mut login = RedisConnectionInfo::default();
    if let Some(username) = properties.text(username) {
        login = login.set_username(username);
    }
    if let Some(password) = properties.text(password) {
        login = login.set_password(password);
    }
    login
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Result<Options, InvalidProperty> {
        let host = [("redisHost", "localhost")];
        let pairs = host.iter().chain(pairs);
        Options::new(&pairs.map(|&(name, value)| (name, value.to_owned().into())).collect())
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        options(pairs).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_defaults_are_daprs() {
        let Options { addresses, discovery, dialler, retries, default_ttl } = options(&[]).unwrap();
        assert_eq!(addresses.iter().map(Address::to_string).collect::<Vec<_>>(), ["localhost:6379"]);
        assert!(matches!(discovery, Discovery::None) && dialler.tls.is_none());
        assert_eq!(dialler.timeout, Duration::from_secs(5));
        assert_eq!(dialler.response_timeout, Some(Duration::from_secs(3)));
        assert_eq!((retries.most, default_ttl), (3, None));
    }

    #[test]
    fn a_bare_integer_is_milliseconds() {
        let dialler = options(&[("dialTimeout", "250"), ("readTimeout", "1500")]).unwrap().dialler;
        assert_eq!(dialler.timeout, Duration::from_millis(250));
        assert_eq!(dialler.response_timeout, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn the_longer_of_read_and_write_timeout_counts_and_below_zero_is_none() {
        let timeout = |pairs: &[(&str, &str)]| options(pairs).unwrap().dialler.response_timeout;
        assert_eq!(timeout(&[("writeTimeout", "10s")]), Some(Duration::from_secs(10)));
        assert_eq!(timeout(&[("readTimeout", "0")]), Some(Duration::from_secs(3)));
        assert_eq!(timeout(&[("readTimeout", "-1")]), None);
        assert_eq!(timeout(&[("writeTimeout", "-1")]), None);
    }

    #[test]
    fn retries_are_counted_as_daprs_client_counts_them() {
        let retries = |name, count| options(&[(name, count)]).unwrap().retries.most;
        let counted = ["0", "7", "-1"].map(|count| retries("redisMaxRetries", count));
        assert_eq!(counted, [3, 7, 0]);
        assert_eq!(retries("maxRetries", "7"), 7);
    }

    #[test]
    fn pauses_are_what_was_asked_for_and_none_below_zero() {
        let pauses = |shortest, longest| {
            let options = options(&[("redisMinRetryInterval", shortest), ("redisMaxRetryInterval", longest)]);
            let Retries { shortest_pause, longest_pause, .. } = options.unwrap().retries;
            (shortest_pause.as_millis(), longest_pause.as_millis())
        };
        assert_eq!(pauses("", ""), (8, 512));
        assert_eq!(pauses("20", "2s"), (20, 2000));
        assert_eq!(pauses("-1", "-1"), (0, 0));
    }

    #[test]
    fn several_addresses_are_a_clusters_or_of_sentinels() {
        let hosts = ("redisHost", "a:1,b:2");
        assert!(error(&[hosts]).contains("redisType: cluster"), "{}", error(&[hosts]));
        let cluster = options(&[hosts, ("redisType", "cluster"), ("redisDB", "3")]).unwrap();
        assert!(matches!(cluster.discovery, Discovery::Cluster) && cluster.addresses.len() == 2);
        assert_eq!(cluster.dialler.login.db(), 0);
        let sentinels = options(&[hosts, ("failover", "true"), ("sentinelMasterName", "it"), ("redisDB", "3")]);
        let sentinels = sentinels.unwrap();
        assert!(matches!(sentinels.discovery, Discovery::Sentinels { master, .. } if master == "it"));
        assert_eq!(sentinels.dialler.login.db(), 3);
    }

    #[test]
    fn what_cannot_be_is_named() {
        assert!(error(&[("failover", "true")]).contains("sentinelMasterName"));
        assert!(error(&[("redisType", "both")]).contains("redisType"));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named_and_not_told() {
        let pem = "-----BEGIN PRIVATE KEY-----hunter2";
        let error = error(&[
            ("enableTLS", "true"),
            ("insecureSkipTLSVerify", "true"),
            ("clientCert", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("clientKey", pem),
        ]);
        assert!(error.contains("clientKey") && !error.contains("hunter2"), "{error}");
    }
}
