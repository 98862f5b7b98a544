//! Where a server listens.

use std::fmt;
use std::net::Ipv6Addr;

use super::fields;
use crate::properties::{InvalidProperty, Properties};

const DEFAULT_PORT: u16 = 6379;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// `redisHost`: one address, or several with commas between them. Each has its port, else `redisPort`, else 6379.
    pub(super) fn list(properties: &Properties) -> Result<Vec<Self>, InvalidProperty> {
        let written = properties.required(&fields::HOST)?;
        let port = properties.integer::<u16>(&fields::PORT)?.filter(|&port| port != 0);
        written.split(',').map(|address| Self::parse(address.trim(), port)).collect()
    }

    /// A host in brackets is an IPv6 address; without brackets it has no port.
    fn parse(written: &str, other_port: Option<u16>) -> Result<Self, InvalidProperty> {
        let malformed = InvalidProperty::Malformed { name: fields::HOST.name, expected: "`host:port`" };
        let (host, port) = match written.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| malformed.clone())?))
            }
            _ => (written, None),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_host = !host.is_empty() && (!host.contains(':') || host.parse::<Ipv6Addr>().is_ok());
        match (port, other_port) {
            _ if !is_host => Err(malformed),
            (Some(port), Some(other)) if port != other => {
                Err(InvalidProperty::Other("`redisHost` and `redisPort` name different ports".to_owned()))
            }
            (port, other) => Ok(Self { host: host.to_owned(), port: port.or(other).unwrap_or(DEFAULT_PORT) }),
        }
    }

    /// What a server wrote behind `MOVED` or `ASK`: `host:port`, an IPv6 address too without brackets. A server that
    /// does not know its own name leaves the host out: it means the one it was asked by.
    pub(super) fn told(written: &str, asked: &Self) -> Option<Self> {
        let (host, port) = written.rsplit_once(':')?;
        Some(Self { host: asked.host.clone(), port: port.parse().ok()? }.named(Some(host)))
    }

    /// With the host that a server told, if it told one.
    pub(super) fn named(self, host: Option<&str>) -> Self {
        match host {
            Some(host) if !host.is_empty() && host != "?" => Self { host: host.to_owned(), ..self },
            _ => self,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Result<Vec<String>, InvalidProperty> {
        let properties = pairs.iter().map(|&(name, value)| (name, value.to_owned().into())).collect();
        Ok(Address::list(&properties)?.iter().map(Address::to_string).collect())
    }

    #[test]
    fn the_port_comes_with_the_host_or_by_itself() {
        assert_eq!(list(&[("redisHost", "redis")]).unwrap(), ["redis:6379"]);
        assert_eq!(list(&[("redisHost", "redis:7000")]).unwrap(), ["redis:7000"]);
        assert_eq!(list(&[("redisHost", "redis"), ("redisPort", "7001")]).unwrap(), ["redis:7001"]);
        assert_eq!(list(&[("redisHost", "[::1]:7002")]).unwrap(), ["[::1]:7002"]);
        assert_eq!(list(&[("redisHost", "::1")]).unwrap(), ["[::1]:6379"]);
    }

    #[test]
    fn several_addresses_have_commas_between_them() {
        assert_eq!(list(&[("redisHost", "a:1, b,[::1]:2")]).unwrap(), ["a:1", "b:6379", "[::1]:2"]);
        assert_eq!(list(&[("redisHost", "a,b"), ("redisPort", "7001")]).unwrap(), ["a:7001", "b:7001"]);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for written in ["", ",", "a:1,", "redis:port", "redis:70000", ":6379", "redis://redis:6379", "redis:6379:1"] {
            assert!(list(&[("redisHost", written)]).is_err(), "{written}");
        }
        assert!(list(&[("redisHost", "redis:7000"), ("redisPort", "7001")]).is_err());
    }

    #[test]
    fn a_server_that_names_no_host_means_the_one_it_was_asked_by() {
        let asked = Address { host: "10.0.0.1".into(), port: 7000 };
        let told = |written| Address::told(written, &asked).map(|address| address.to_string());
        assert_eq!(told("10.0.0.2:7001").as_deref(), Some("10.0.0.2:7001"));
        assert_eq!(told(":7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(told("::1:7001").as_deref(), Some("[::1]:7001"));
        assert_eq!(told("nonsense"), None);
    }
}
