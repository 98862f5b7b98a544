//! Connection strings, in both of libpq's notations, <https://www.postgresql.org/docs/current/libpq-connect.html>.
//!
//! Where a string cannot be read, neither its values nor keywords that are not known are told: a password with
//! a space in it would be among them.

use std::collections::BTreeMap;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use crate::properties::InvalidProperty;

/// The keywords that may be used. `sslmode` and those after it are not the driver's.
const KEYWORDS: [&str; 18] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "options",
    "password",
    "port",
    "target_session_attrs",
    "user",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "pool_max_conns",
];

/// Those of Go's driver and its connection pool that have no effect here.
const WITHOUT_EFFECT: [&str; 9] = [
    // It is UTF-8.
    "client_encoding",
    "default_query_exec_mode",
    "description_cache_capacity",
    "pool_health_check_period",
    "pool_max_conn_idle_time",
    "pool_max_conn_lifetime",
    "pool_max_conn_lifetime_jitter",
    "pool_min_conns",
    "statement_cache_capacity",
];

/// Settings of the server for a session, in any case. Go's driver sends them one by one; here they are among the `options`.
const SETTINGS: [&str; 11] = [
    "datestyle",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "jit",
    "lock_timeout",
    "role",
    "search_path",
    "statement_timeout",
    "timezone",
    "work_mem",
];

/// Values by keyword; the last of two counts.
#[derive(Default)]
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// Reads `postgres://user:password@host:port/database?keyword=value` or `keyword=value keyword='value'`.
    pub(super) fn parse(text: &str) -> Result<Self, InvalidProperty> {
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        let pairs = if is_url { pairs_of_url(text) } else { pairs(text) };
        let mut parameters = Self::default();
        for (keyword, value) in pairs.ok_or_else(|| malformed("a URL or pairs such as `host=localhost`"))? {
            // As Go's driver has it.
            let keyword = if keyword == "database" { "dbname" } else { &keyword };
            if WITHOUT_EFFECT.contains(&keyword) {
                continue;
            }
            let setting = || SETTINGS.iter().find(|known| known.eq_ignore_ascii_case(keyword));
            let known = KEYWORDS.iter().find(|&known| *known == keyword).or_else(setting);
            parameters.set(known.ok_or_else(unknown_keyword)?, value);
        }
        Ok(parameters)
    }

    /// `keyword` is one that is known. An empty value counts as none.
    pub(super) fn set(&mut self, keyword: &'static str, value: String) {
        if !value.is_empty() {
            self.0.insert(keyword, value);
        }
    }

    pub(super) fn take(&mut self, keyword: &str) -> Option<String> {
        self.0.remove(keyword)
    }

    /// What the driver is to know. An address without a name is its own name, and no address at all is this machine.
    pub(super) fn into_config(mut self) -> Result<Config, InvalidProperty> {
        let address = self.0.get("hostaddr").cloned();
        self.0.entry("host").or_insert_with(|| address.unwrap_or_else(|| "localhost".to_owned()));
        for name in SETTINGS {
            if let Some(value) = self.0.remove(name) {
                let options = self.0.entry("options").or_default();
                *options += &format!(" -c {name}={}", escaped(&value));
            }
        }
        let mut rendered = String::new();
        for (keyword, value) in self.0 {
            let value = value.replace('\\', r"\\").replace('\'', r"\'");
            let pair = format!("{keyword}='{value}' ");
            pair.parse::<Config>().map_err(|_| cannot_be_used(keyword))?;
            rendered += &pair;
        }
        let config: Config = rendered.parse().map_err(|_| malformed("a connection string"))?;
        let hosts = config.get_hosts().len();
        if ![0, hosts].contains(&config.get_hostaddrs().len()) {
            return Err(cannot_be_used("hostaddr"));
        }
        if ![0, 1, hosts].contains(&config.get_ports().len()) {
            return Err(cannot_be_used("port"));
        }
        Ok(config)
    }
}

/// A value as `options` has it: a backslash before white space and before itself.
fn escaped(value: &str) -> String {
    let escape = |character: char| (character.is_whitespace() || character == '\\').then_some('\\');
    value.chars().flat_map(|character| escape(character).into_iter().chain([character])).collect()
}

pub(super) fn cannot_be_used(keyword: &str) -> InvalidProperty {
    InvalidProperty::Other(format!("the value of `{keyword}` in the connection string cannot be used"))
}

fn malformed(expected: &'static str) -> InvalidProperty {
    InvalidProperty::Malformed { name: "connectionString", expected }
}

fn unknown_keyword() -> InvalidProperty {
    let known = [&KEYWORDS[..], &SETTINGS, &WITHOUT_EFFECT].concat().join(", ");
    InvalidProperty::Other(format!(
        "`connectionString` has a keyword that is not known, or a value with a space that is not in quotes; known: {known}"
    ))
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (keyword, after) = rest.split_once('=')?;
        let (value, after) = value(after.trim_start())?;
        pairs.push((keyword.trim_end().to_owned(), value));
        rest = after.trim_start();
    }
    Some(pairs)
}

/// A value, up to white space or in quotes, and what comes after it. A backslash makes any character part of it.
fn value(text: &str) -> Option<(String, &str)> {
    let in_quotes = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(in_quotes));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if in_quotes => return Some((value, &text[at + 1..])),
            space if !in_quotes && space.is_whitespace() => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!in_quotes).then_some((value, ""))
}

/// The driver reads all but what follows a `?`, which may hold keywords that it does not know.
fn pairs_of_url(text: &str) -> Option<Vec<(String, String)>> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let config: Config = base.parse().ok()?;
    let password = config.get_password().map(<[u8]>::to_vec).map(String::from_utf8).transpose().ok()?;
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => Some(name.as_str()),
        Host::Unix(folder) => folder.to_str(),
    });
    let hosts = hosts.collect::<Option<Vec<_>>>()?.join(",");
    let ports = config.get_ports().iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let pairs = [
        ("user", config.get_user().unwrap_or_default()),
        ("password", password.as_deref().unwrap_or_default()),
        ("host", hosts.as_str()),
        ("port", ports.as_str()),
        ("dbname", config.get_dbname().unwrap_or_default()),
    ];
    let pairs = pairs.map(|(keyword, value)| (keyword.to_owned(), value.to_owned()));
    Some(pairs.into_iter().chain(form_urlencoded::parse(query.as_bytes()).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Parameters::parse(text).and_then(Parameters::into_config).unwrap()
    }

    fn refusal(text: &str) -> String {
        Parameters::parse(text).and_then(Parameters::into_config).unwrap_err().to_string()
    }

    #[test]
    fn both_notations_say_the_same() {
        let pairs = config(r"host = db port=6432 user=me password='it\'s a \\' database=app");
        let url = config(r"postgresql://me:it%27s%20a%20%5C@db:6432/app");
        assert_eq!(pairs, url);
        assert_eq!(pairs.get_password(), Some(&br"it's a \"[..]));
    }

    #[test]
    fn a_url_may_name_several_hosts_and_anything_after_its_question_mark() {
        let url = config("postgres://one:1,two:2/app?user=me&connect_timeout=3&target_session_attrs=read-write");
        assert_eq!(url.get_hosts(), [Host::Tcp("one".into()), Host::Tcp("two".into())]);
        assert_eq!((url.get_ports(), url.get_user()), (&[1, 2][..], Some("me")));
        assert_eq!(url.get_connect_timeout(), Some(&std::time::Duration::from_secs(3)));
    }

    #[test]
    fn settings_of_a_session_are_among_its_options() {
        let config =
            config(r"options='-c geqo=off' search_path='one, two' TimeZone=UTC statement_timeout=5s pool_min_conns=1");
        let options = r"-c geqo=off -c search_path=one,\ two -c statement_timeout=5s -c timezone=UTC";
        assert_eq!(config.get_options(), Some(options));
    }

    #[test]
    fn a_server_without_an_address_is_on_this_machine() {
        assert_eq!(config("user=me").get_hosts(), [Host::Tcp("localhost".into())]);
        assert_eq!(config("hostaddr=127.0.0.1").get_hosts(), [Host::Tcp("127.0.0.1".into())]);
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_told() {
        for text in [
            "host",
            "host='db",
            "password=hunter 2=x",
            "postgres://me:hunter@db:port/",
            "hunter=2 host=db",
            "host='hunter''x'",
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains("connectionString") && !refusal.contains("hunter"), "{refusal}");
        }
        for (text, keyword) in [
            ("port=many", "port"),
            ("hostaddr=db", "hostaddr"),
            ("connect_timeout=x", "connect_timeout"),
            ("host=a port=1,2", "port"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(&format!("`{keyword}`")), "{refusal}");
        }
    }
}
