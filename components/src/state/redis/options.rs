//! The metadata of the component, with the defaults and units of Dapr; docs/redis.md has what each of them means here.
//!
//! Source: dapr/components-contrib `common/component/redis/settings.go`, `redis.go` and `v9client.go`.

use std::time::Duration;

use redis::RedisConnectionInfo;

use super::address::Address;
use super::dialler::Dialler;
use super::tls;
use crate::duration::GoDuration;
use crate::properties::{InvalidProperty, Properties};

const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_MAX_RETRIES: u32 = 3;
const DEFAULT_SHORTEST_PAUSE: Duration = Duration::from_millis(8);
const DEFAULT_LONGEST_PAUSE: Duration = Duration::from_millis(512);
/// What an integer without a unit counts.
const BARE_UNIT: Duration = Duration::from_millis(1);

pub(super) struct Options {
    /// At least one; of servers, or of sentinels.
    pub(super) addresses: Vec<Address>,
    pub(super) discovery: Discovery,
    /// For servers, not for sentinels.
    pub(super) dialler: Dialler,
    pub(super) retries: Retries,
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
        refuse_unsupported(properties)?;
        let discovery = discovery(properties)?;
        let addresses = Address::list(properties)?;
        if matches!(discovery, Discovery::None) && addresses.len() > 1 {
            let message = "several addresses in `redisHost` need `redisType: cluster` or `failover: true`";
            return Err(InvalidProperty::Other(message.to_owned()));
        }
        let database = match discovery {
            Discovery::Cluster => 0,
            _ => properties.integer("redisDB")?.unwrap_or_default(),
        };
        let timeout = |name| properties.duration(name, BARE_UNIT);
        let read_timeout = timeout_or(timeout("readTimeout")?, Some(DEFAULT_READ_TIMEOUT));
        let write_timeout = timeout_or(timeout("writeTimeout")?, read_timeout);
        let dialler = Dialler {
            login: login(properties, "redisUsername", "redisPassword").set_db(database),
            tls: tls::connector(properties)?,
            timeout: timeout("dialTimeout")?.and_then(GoDuration::positive).unwrap_or(DEFAULT_DIAL_TIMEOUT),
            response_timeout: read_timeout.zip(write_timeout).map(|(read, write)| read.max(write)),
        };
        Ok(Self { addresses, discovery, dialler, retries: Retries::new(properties)? })
    }
}

impl Retries {
    fn new(properties: &Properties) -> Result<Self, InvalidProperty> {
        let most = match properties.integer::<i64>("redisMaxRetries")? {
            None => properties.integer("maxRetries")?,
            most => most,
        };
        let pause = |name, default| -> Result<Duration, InvalidProperty> {
            let pause = timeout_or(properties.duration(name, BARE_UNIT)?, Some(default));
            Ok(pause.unwrap_or(Duration::ZERO))
        };
        Ok(Self {
            most: match most.unwrap_or_default() {
                0 => DEFAULT_MAX_RETRIES,
                retries => u32::try_from(retries).unwrap_or_default(),
            },
            shortest_pause: pause("redisMinRetryInterval", DEFAULT_SHORTEST_PAUSE)?,
            longest_pause: pause("redisMaxRetryInterval", DEFAULT_LONGEST_PAUSE)?,
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
    match ["useEntraID", "useAzureAD", "useOIDC"].into_iter().find(|name| properties.flag(name)) {
        Some(name) => Err(InvalidProperty::Unsupported(name)),
        None => Ok(()),
    }
}

fn discovery(properties: &Properties) -> Result<Discovery, InvalidProperty> {
    if properties.flag("failover") {
        let master = properties.required("sentinelMasterName")?.to_owned();
        return Ok(Discovery::Sentinels { master, login: login(properties, "sentinelUsername", "sentinelPassword") });
    }
    match properties.text("redisType") {
        None => Ok(Discovery::None),
        Some(kind) if kind.eq_ignore_ascii_case("node") => Ok(Discovery::None),
        Some(kind) if kind.eq_ignore_ascii_case("cluster") => Ok(Discovery::Cluster),
        Some(_) => Err(InvalidProperty::Malformed { name: "redisType", expected: "`node` or `cluster`" }),
    }
}

fn login(properties: &Properties, username: &str, password: &str) -> RedisConnectionInfo {
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
        let Options { addresses, discovery, dialler, retries } = options(&[]).unwrap();
        assert_eq!(addresses.iter().map(Address::to_string).collect::<Vec<_>>(), ["localhost:6379"]);
        assert!(matches!(discovery, Discovery::None) && dialler.tls.is_none());
        assert_eq!(dialler.timeout, Duration::from_secs(5));
        assert_eq!(dialler.response_timeout, Some(Duration::from_secs(3)));
        assert_eq!(retries.most, 3);
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
        assert!(error(&[("useEntraID", "true")]).contains("not supported yet"));
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
