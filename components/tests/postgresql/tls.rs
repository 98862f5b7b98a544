//! `state.postgresql` and TLS: who is believed to be the server, in each of libpq's modes.

use std::fs;
use std::process::Command;

use host_abi::error::{Error, ErrorClass};
use tempfile::TempDir;
use testbed::postgresql::{PostgresqlServer, Setup, USER};

use crate::support::{self, get, set_request};

/// An authority, and what it signed.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Self { folder };
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority");
        authority
    }

    /// Writes `name.crt` and `name.key`, for a host of this name or a user of this name.
    fn sign(&self, name: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name} \
             -addext subjectAltName=DNS:{name}"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -days 2 -copy_extensions copy -out {name}.crt"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.path().join(file)).unwrap()
    }
}

/// A server whose certificate says `localhost`, and that lets in whom `access` lets in.
struct Server {
    authority: Authority,
    server: PostgresqlServer,
}

impl Server {
    fn start(access: &str) -> Self {
        let authority = Authority::new();
        authority.sign("localhost");
        let server = PostgresqlServer::start_with(&Setup {
            settings: &[("log_connections", "on")],
            access: Some(access),
            certificate: Some((&authority.read("localhost.crt"), &authority.read("localhost.key"))),
            client_authority: Some(&authority.read("ca.crt")),
        });
        Self { authority, server }
    }

    /// The words for a file of the authority's.
    fn file(&self, keyword: &str, file: &str) -> String {
        format!("{keyword}={}", self.authority.folder.path().join(file).display())
    }

    /// What becomes of a set by a store with these words in its connection string, and whether it used TLS.
    async fn set(&self, words: &str) -> Result<bool, Error> {
        let port = self.server.port();
        let address = format!("hostaddr=127.0.0.1 port={port} user={USER} dbname=postgres connect_timeout=5 {words}");
        let store = support::store("state.postgresql v2", &[("connectionString", &address)]);
        store.set(set_request("z", "value")).await?;
        assert_eq!(get(&*store, "z").await.data, "value");
        Ok(self.tls_of_last_session())
    }

    fn tls_of_last_session(&self) -> bool {
        let log = self.server.log();
        let authorized = log.lines().rfind(|line| line.contains("connection authorized"));
        authorized.expect("a connection in the log").contains("SSL enabled")
    }
}

fn class<T>(result: Result<T, Error>) -> Option<ErrorClass> {
    result.err().map(|error| error.class)
}

#[tokio::test]
async fn a_server_that_wants_tls_gets_it_in_every_mode_but_disable() {
    let server = Server::start("hostssl all all 127.0.0.1/32 trust\n");
    for mode in ["allow", "prefer", "require"] {
        assert_eq!(server.set(&format!("host=elsewhere sslmode={mode}")).await, Ok(true), "{mode}");
    }
    assert_eq!(server.set("").await, Ok(true), "prefer is the default");
    assert_eq!(class(server.set("sslmode=disable").await), Some(ErrorClass::PermissionDenied));
}

#[tokio::test]
async fn the_modes_that_verify_want_the_authority_and_the_last_of_them_the_name() {
    let server = Server::start("hostssl all all 127.0.0.1/32 trust\n");
    let other = Authority::new();
    let ours = server.file("sslrootcert", "ca.crt");
    let others = format!("sslrootcert={}", other.folder.path().join("ca.crt").display());
    for (mode, authority, host, accepted) in [
        ("verify-full", &ours, "localhost", true),
        ("verify-full", &ours, "elsewhere", false),
        ("verify-full", &others, "localhost", false),
        ("verify-ca", &ours, "elsewhere", true),
        ("verify-ca", &others, "localhost", false),
        ("require", &ours, "elsewhere", true),
        ("require", &others, "localhost", false),
    ] {
        let result = server.set(&format!("sslmode={mode} {authority} host={host}")).await;
        let class = class(result.clone());
        assert_eq!(class, (!accepted).then_some(ErrorClass::Unavailable), "{mode} {host}: {result:?}");
    }
    let error = server.set("sslmode=verify-full host=localhost").await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "the system does not know the authority: {error}");
}

#[tokio::test]
async fn a_server_that_wants_no_tls_is_gone_along_with_where_the_mode_lets() {
    let server = Server::start("hostnossl all all 127.0.0.1/32 trust\n");
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(server.set(&format!("sslmode={mode}")).await, Ok(false), "{mode}");
    }
    assert_eq!(class(server.set("sslmode=require").await), Some(ErrorClass::PermissionDenied));
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let server = PostgresqlServer::shared();
    let (address, tables) = (server.connection_string(), server.unused_prefix());
    let store = |mode| {
        let address = format!("{address} sslmode={mode}");
        support::store("state.postgresql v2", &[("connectionString", &*address), ("tablePrefix", &*tables)])
    };
    store("prefer").set(set_request("z", "value")).await.unwrap();
    let error = store("require").set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("server does not support TLS"), "{error}");
}

#[tokio::test]
async fn a_certificate_takes_the_place_of_a_password() {
    let server = Server::start("hostssl all all 127.0.0.1/32 cert\n");
    server.authority.sign(USER);
    server.authority.sign("somebody");
    let identity = |name: &str| {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        format!("sslmode=require {} {}", server.file("sslcert", &certificate), server.file("sslkey", &key))
    };
    assert_eq!(server.set(&identity(USER)).await, Ok(true));
    assert_eq!(class(server.set(&identity("somebody")).await), Some(ErrorClass::PermissionDenied));
    assert_eq!(class(server.set("sslmode=require").await), Some(ErrorClass::PermissionDenied));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_and_used_once_it_can() {
    let server = Server::start("hostssl all all 127.0.0.1/32 trust\n");
    let port = server.server.port().to_string();
    let late = server.authority.folder.path().join("late.crt");
    let store = support::store(
        "state.postgresql v2",
        &[
            ("connectionString", "sslmode=verify-full host=localhost hostaddr=127.0.0.1 dbname=postgres"),
            ("port", &port),
            ("user", USER),
            ("sslRootCert", late.to_str().unwrap()),
        ],
    );
    let error = store.set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable);
    assert!(error.message.contains("sslrootcert: cannot read") && error.message.contains("late.crt"), "{error}");
    fs::write(&late, "nothing").unwrap();
    assert_eq!(class(store.set(set_request("z", "value")).await), Some(ErrorClass::Unavailable));
    fs::write(&late, server.authority.read("ca.crt")).unwrap();
    store.set(set_request("z", "value")).await.unwrap();
}
