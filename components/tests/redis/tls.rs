//! TLS: whose certificates are taken, and what is shown to the server.
//!
//! Root certificates are the system's, which only the environment of a process can say to be others: what needs that is
//! a test of its own, ignored here and run in a child that has it.

use std::env;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use components::{App, Registry};
use host_abi::error::ErrorClass;
use host_abi::state::StateStore;
use testbed::redis::{Certificates, RedisCluster, RedisServer, WatchedRedis};

use crate::counter::Writes;
use crate::support::{get, set_request, store};
use crate::{cluster, failover};

/// Where the child finds the server, or one that knows the others; its client's certificate and key.
const HOST: &str = "REDIS_TLS_HOST";
const CERTIFICATE: &str = "REDIS_TLS_CERTIFICATE";
const KEY: &str = "REDIS_TLS_KEY";

/// Runs the test of the module [`child`] where `roots` are the system's.
fn run(test: &str, roots: &Path, certificates: &Certificates, host: &str) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", &format!("tls::child::{test}")])
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .env(HOST, host)
        .env(CERTIFICATE, certificates.pem("client.pem"))
        .env(KEY, certificates.pem("client.key"))
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
}

#[test]
fn a_server_of_a_trusted_authority_is_reached() {
    let certificates = Certificates::new();
    let server = RedisServer::start_with_tls(&certificates);
    run("reaches_the_server", &certificates.path("ca.pem"), &certificates, &server.tls_host());
}

#[test]
fn a_server_of_another_authority_is_refused() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let server = RedisServer::start_with_tls(&certificates);
    run("takes_the_server_for_a_strangers", &others.path("ca.pem"), &certificates, &server.tls_host());
}

#[test]
fn a_server_whose_certificate_names_another_host_is_refused() {
    let certificates = Certificates::new();
    let server = RedisServer::start_with_tls(&certificates);
    run("misses_the_name_in_the_certificate", &certificates.path("ca.pem"), &certificates, &server.tls_host());
}

#[test]
fn the_servers_of_a_cluster_are_those_that_their_certificates_name() {
    let certificates = Certificates::new();
    let cluster = RedisCluster::start_with_tls(&certificates, 0);
    let seed = cluster.servers[1].tls_host();
    run("keeps_keys_of_every_slot", &certificates.path("ca.pem"), &certificates, &seed);
    assert!(cluster.servers.iter().all(|server| server.command::<i64>(&["DBSIZE"]) > 0));
}

#[test]
fn sentinels_and_the_master_are_those_that_their_certificates_name() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let watched = WatchedRedis::start_with_tls(&certificates);
    let sentinel = watched.sentinel.tls_host();
    run("takes_the_sentinel_for_a_strangers", &others.path("ca.pem"), &certificates, &sentinel);
    run("asks_a_sentinel_for_the_master", &certificates.path("ca.pem"), &certificates, &sentinel);
    assert_eq!(crate::hash(&watched.servers[0], "z"), ["data", "value", "version", "1"]);
}

/// What of the component's metadata is about TLS, where no name is looked at.
fn unchecked(certificates: &Certificates) -> [(&'static str, String); 4] {
    let switched_on = |name| (name, "true".to_owned());
    let file = |name, file| (name, certificates.pem(file));
    let [certificate, key] = [file("clientCert", "client.pem"), file("clientKey", "client.key")];
    [switched_on("enableTLS"), switched_on("insecureSkipTLSVerify"), certificate, key]
}

fn store_over_tls(certificates: &Certificates, metadata: &[(&str, &str)]) -> Arc<dyn StateStore> {
    let tls = unchecked(certificates);
    let tls = tls.iter().map(|(name, value)| (*name, value.as_str()));
    store("state.redis", &metadata.iter().copied().chain(tls).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_in_a_cluster_over_tls_loses_nothing_and_writes_nothing_twice() {
    let certificates = Certificates::new();
    let mut cluster = RedisCluster::start_with_tls(&certificates, 1);
    let hosts = [("redisHost", &*cluster.servers[1].tls_host()), ("redisType", "cluster")];
    let store = store_over_tls(&certificates, &hosts);
    cluster::count_through_a_fall(&mut cluster, store, Writes::Sets).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_masters_fall_under_sentinels_over_tls_loses_nothing_and_writes_nothing_twice() {
    let certificates = Certificates::new();
    let mut watched = WatchedRedis::start_with_tls(&certificates);
    let sentinel = watched.sentinel.tls_host();
    let hosts = [("redisHost", &*sentinel), ("failover", "true"), ("sentinelMasterName", watched.name())];
    let store = store_over_tls(&certificates, &hosts);
    failover::count_through_a_fall(&mut watched, store, Writes::Sets).await;
}

#[test]
fn without_root_certificates_nothing_is_loaded() {
    let certificates = Certificates::new();
    run("has_no_roots", &certificates.path("none.pem"), &certificates, "127.0.0.1:1");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_refuses_who_has_none() {
    let certificates = Certificates::new();
    let server = RedisServer::start_with_tls(&certificates);
    let host = server.tls_host();
    let unchecked = [("redisHost", host.as_str()), ("enableTLS", "true"), ("insecureSkipTLSVerify", "true")];
    let (certificate, key) = (certificates.pem("client.pem"), certificates.pem("client.key"));
    for incomplete in [&[][..], &[("clientCert", certificate.as_str())], &[("clientKey", &key)]] {
        let store = store("state.redis", &[&unchecked, incomplete].concat());
        let error = store.set(set_request("z", "value")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
    }
    assert_eq!(server.command::<i64>(&["EXISTS", "z"]), 0);
    let complete = [("clientCert", certificate.as_str()), ("clientKey", &key)];
    store("state.redis", &[&unchecked[..], &complete].concat()).set(set_request("z", "value")).await.unwrap();
    assert_eq!(crate::hash(&server, "z"), ["data", "value", "version", "1"]);
}

#[tokio::test]
async fn a_server_without_tls_is_unavailable_to_who_wants_it() {
    let server = RedisServer::start();
    let tls = [("redisHost", &*server.host()), ("enableTLS", "true"), ("insecureSkipTLSVerify", "true")];
    let error = store("state.redis", &tls).set(set_request("z", "value")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
}

mod child {
    use super::*;

    fn metadata(host: &str) -> Vec<(&'static str, String)> {
        let from_parent = |name| env::var(name).unwrap();
        let host = from_parent(HOST).replace("127.0.0.1", host);
        let enabled = ("enableTLS", "true".to_owned());
        vec![("redisHost", host), enabled, ("clientCert", from_parent(CERTIFICATE)), ("clientKey", from_parent(KEY))]
    }

    fn store_of(metadata: &[(&str, String)]) -> Arc<dyn StateStore> {
        let metadata: Vec<(&str, &str)> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
        store("state.redis", &metadata)
    }

    async fn refusal(host: &str) -> String {
        let error = store_of(&metadata(host)).set(set_request("z", "value")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
        error.message
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn reaches_the_server() {
        let store = store_of(&metadata("127.0.0.1"));
        store.set(set_request("z", "value")).await.unwrap();
        assert_eq!(get(&*store, "z").await.data, "value");
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn keeps_keys_of_every_slot() {
        let cluster = ("redisType", "cluster".to_owned());
        let store = store_of(&[metadata("127.0.0.1"), vec![cluster]].concat());
        for key in (0..30).map(|number| number.to_string()) {
            store.set(set_request(&key, &key)).await.unwrap();
            assert_eq!(get(&*store, &key).await.data, key);
        }
    }

    /// The metadata of a store behind the sentinel.
    fn watched() -> Vec<(&'static str, String)> {
        let sentinel = [("failover", "true".to_owned()), ("sentinelMasterName", "it".to_owned())];
        [metadata("127.0.0.1"), sentinel.to_vec()].concat()
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn asks_a_sentinel_for_the_master() {
        let store = store_of(&watched());
        store.set(set_request("z", "value")).await.unwrap();
        assert_eq!(get(&*store, "z").await.data, "value");
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn takes_the_sentinel_for_a_strangers() {
        let error = store_of(&watched()).set(set_request("z", "value")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
        assert!(error.message.contains("UnknownIssuer"), "{error}");
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn takes_the_server_for_a_strangers() {
        let refusal = refusal("127.0.0.1").await;
        assert!(refusal.contains("UnknownIssuer"), "{refusal}");
    }

    #[tokio::test]
    #[ignore = "a part of another test"]
    async fn misses_the_name_in_the_certificate() {
        let refusal = refusal("localhost").await;
        assert!(refusal.contains("not valid for name"), "{refusal}");
    }

    #[test]
    #[ignore = "a part of another test"]
    fn has_no_roots() {
        let folder = tempfile::tempdir().unwrap();
        let yaml = "kind: Component\nmetadata: {name: z}\nspec:\n  type: state.redis\n  metadata:\n  \
                    - {name: redisHost, value: z}\n  - {name: enableTLS, value: 'true'}\n";
        std::fs::write(folder.path().join("redis.yaml"), yaml).unwrap();
        let faults = Registry::builtin().load(&[folder.path()], &App::default()).err().unwrap().to_string();
        assert!(faults.contains("root certificates"), "{faults}");
    }
}
