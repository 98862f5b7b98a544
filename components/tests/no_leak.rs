//! No secret is ever in an error, a log or a debug print, whatever goes wrong with it.

#![cfg(all(feature = "postgresql", feature = "redis", feature = "sqlite"))]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use components::manifest;
use components::properties::{Properties, Redacted};
use components::state::in_memory;
use components::{App, AppId, Components, Faults, Registry};
use host_abi::error::Error;
use host_abi::secrets::{GetRequest, SecretError};
use host_abi::state::{DeleteRequest, GetRequest as GetState, Operation, SetRequest};
use testbed::postgresql::{PostgresqlServer, Setup};
use testbed::redis::RedisServer;

/// In every secret of this file, and nowhere else.
const MARK: &str = "hunter2";

/// Of PostgreSQL, with a password in each; the first can be used.
const ADDRESSES: [&str; 5] = [
    "postgres://dapr:MARK@127.0.0.1:1/postgres",
    "postgres://dapr:MARK@127.0.0.1:port/postgres",
    "postgres://dapr:MARK@127.0.0.1/postgres?MARK=1",
    "host=127.0.0.1 password=MARK MARK=1",
    "host=127.0.0.1 password='MARK",
];

/// Everything that was written, whoever wrote it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written {
    /// As a log of everything has it.
    fn add(&self, value: impl Debug) {
        io::Write::write_all(&mut self.clone(), format!("{value:?}\n{value:#?}\n").as_bytes()).unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn component(name: &str, component_type: &str, metadata: &[String]) -> String {
    let items: String = metadata.iter().map(|item| format!("  - {{{item}}}\n")).collect();
    // Whoever is away is not waited for.
    let spec = format!("spec:\n  type: {component_type}\n  initTimeout: 1ns\n  metadata:\n{items}");
    format!("---\nkind: Component\nmetadata: {{name: {name}}}\n{spec}")
}

fn reference(item: &str, secret: &str) -> String {
    format!("name: {item}, secretKeyRef: {{name: {secret}}}")
}

fn path(item: &str, path: &Path) -> String {
    format!("name: {item}, value: {:?}", path.display())
}

/// Secrets in a file, in variables and in a mounted Secret, each in the folder or the app of the test.
fn stores(folder: &Path) -> String {
    let mounted = folder.join("mounted/redis");
    fs::create_dir_all(&mounted).unwrap();
    fs::write(mounted.join("password"), format!("{MARK}-mounted")).unwrap();
    let database = folder.join(format!("nothing/{MARK}.db")).display().to_string();
    let addresses = ADDRESSES.map(|address| address.replace("MARK", MARK));
    let secrets = format!(
        "{{\"file\": \"{MARK}-file\", \"pin\": [\"{MARK}-0\"], \"database\": {database:?}, \"address\": {addresses:?}}}"
    );
    fs::write(folder.join("secrets.json"), secrets).unwrap();
    [
        component("file", "secretstores.local.file", &[path("secretsFile", &folder.join("secrets.json"))]),
        component("env", "secretstores.local.env", &[]),
        component("mounted", "secretstores.kubernetes", &[path("secretsFolder", &folder.join("mounted"))]),
    ]
    .concat()
}

fn app() -> App {
    let environment = BTreeMap::from([("TOKEN".to_owned(), Redacted::from(format!("{MARK}-env")))]);
    App { id: AppId::new("shop").ok(), pod_name: Some("shop-1".to_owned()), environment, ..App::default() }
}

/// Loads components and says all there is to say about them.
fn load(written: &Written, folder: &Path, yaml: &str) -> Result<Components, Faults> {
    let file = folder.join("components.yaml");
    fs::write(&file, yaml).unwrap();
    let mut faults = Faults::default();
    written.add(manifest::read(&manifest::sources(&[&file]), &mut faults));
    written.add(&faults);
    let mut registry = Registry::builtin();
    registry.register_state_store("state.probe", "v1", in_memory::DESCRIPTION, {
        let written = written.clone();
        move |properties: &Properties| {
            written.add(properties);
            in_memory::construct(properties)
        }
    });
    let loaded = registry.load(&[&file], &app());
    if let Err(faults) = &loaded {
        written.add(faults);
        written.add(faults.to_string());
    }
    loaded
}

fn write_error(written: &Written, error: Error) {
    written.add(error.to_string());
    written.add(SecretError::from(error.clone()));
    written.add(error);
}

/// Every question there is to every secret store, answered or not.
async fn ask_secret_stores(written: &Written, components: &Components) {
    for store in components.secret_stores.values() {
        for name in ["file", "pin:0", "TOKEN", "redis", "other", "", "../redis", "DAPR_API_TOKEN"] {
            let request = GetRequest { key: name.to_owned(), metadata: None };
            written.add(&request);
            match store.get(request).await {
                Ok(secret) => written.add(secret),
                Err(error) => write_error(written, error),
            }
        }
        match store.bulk_get(None).await {
            Ok(secrets) => written.add(secrets),
            Err(error) => write_error(written, error),
        }
    }
}

/// Every question there is to a state store that fails.
async fn ask_state_stores(written: &Written, components: &Components) {
    for store in components.state_stores.values() {
        let key = || "key".to_owned();
        let set = SetRequest { key: key(), ..SetRequest::default() };
        let delete = DeleteRequest { key: key(), ..DeleteRequest::default() };
        let errors = [
            store.get(GetState { key: key(), ..GetState::default() }).await.err(),
            store.set(set.clone()).await.err(),
            store.delete(delete).await.err(),
            store.transact(vec![Operation::Upsert(set)]).await.err(),
        ];
        for error in errors.into_iter().flatten() {
            write_error(written, error);
        }
    }
}

/// Each with a secret of each store where the component can only refuse it.
fn malformed() -> Vec<String> {
    let items = ["redisDB", "redisPort", "dialTimeout", "redisMaxRetries", "redisType", "ttlInSeconds", "keyPrefix"];
    let sources = [("file", "file"), ("env", "TOKEN"), ("mounted", "redis, key: password")];
    let components = items.iter().flat_map(|item| sources.map(|source| (item, source)));
    let yaml = components.enumerate().map(|(index, (item, (store, secret)))| {
        let yaml = component(&format!("c{index}"), "state.redis", &[reference(item, secret)]);
        format!("{yaml}auth: {{secretStore: {store}}}\n")
    });
    let of_file = |component_type: &str, item: &str, secret: &str| {
        format!("{}auth: {{secretStore: file}}\n", component("c", component_type, &[reference(item, secret)]))
    };
    let address =
        |number| of_file("state.postgresql\n  version: v2", "connectionString", &format!("'address:{number}'"));
    yaml.chain((0..ADDRESSES.len()).map(address))
        .chain([
            of_file("state.redis", "redisHost", "file"),
            of_file("state.redis", "notKnown", "file"),
            of_file("state.in-memory", "primaryEncryptionKey", "file"),
            of_file("state.sqlite", "connectionString", "database"),
            of_file("state.sqlite", "tableName", "file"),
            of_file("secretstores.local.file", "secretsFile", "file"),
            of_file("secretstores.kubernetes", "secretsFolder", "file"),
        ])
        .collect()
}

/// Secrets where no secret belongs, and files that are damaged.
fn damaged(folder: &Path) -> Vec<String> {
    let broken = [
        format!("{{\"a\": {MARK}}}"),
        format!("\"{MARK}\""),
        format!("[\"{MARK}\"]"),
        format!("{{\"a\": \"{MARK}"),
        format!("{{\"a\": \"{MARK}\", \"b\": \"\\u{MARK}\"}}"),
        format!("{{\"a:b\": \"{MARK}\", \"a\": {{\"b\": \"{MARK}\"}}}}"),
    ];
    let files = broken.iter().enumerate().map(|(index, content)| {
        let file = folder.join(format!("{index}.json"));
        fs::write(&file, content).unwrap();
        component("broken", "secretstores.local.file", &[path("secretsFile", &file)])
    });
    let yaml = [
        format!("kind: Component\nmetadata: {{name: c}}\nspec: {{type: state.in-memory, metadata: {MARK}}}\n"),
        format!("kind: Component\nmetadata: {{name: c}}\nspec: {{type: state.in-memory, metadata: [{MARK}]}}\n"),
        format!(
            "kind: Component\nmetadata: {{name: c}}\nspec:\n  type: state.in-memory\n  metadata: [{{name: x, value: [{MARK}]}}]\n"
        ),
        format!(
            "kind: Component\nmetadata: {{name: c}}\nspec:\n  type: state.in-memory\n  metadata: [{{name: x, secretKeyRef: {MARK}}}]\n"
        ),
        format!("kind: Component\nmetadata: {{name: c}}\nspec: {{type: state.in-memory}}\nauth: {MARK}\n"),
        format!("kind: Configuration\nspec: {{secrets: {{scopes: [{{storeName: s, defaultAccess: {MARK}}}]}}}}\n"),
        format!("kind: Configuration\nspec: {{secrets: {{scopes: [{{storeName: s, allowedSecrets: {MARK}}}]}}}}\n"),
        format!("kind: Configuration\nspec: {{secrets: {MARK}}}\n"),
        component("c", "state.probe", &[format!("name: a, value: {MARK}"), reference("b", "missing")]),
    ];
    files.chain(yaml).collect()
}

/// One thread for all, so that the subscriber of this test is that of everything in it.
#[tokio::test(flavor = "current_thread")]
async fn no_secret_is_in_anything_that_is_written() {
    let written = Written::default();
    let writer = {
        let written = written.clone();
        move || written.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(writer).finish();
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let folder = tempfile::tempdir().unwrap();
    let stores = stores(folder.path());
    written.add(app());

    let server = RedisServer::start_with(&["--requirepass", "another"]);
    let host = format!("name: redisHost, value: '{}'", server.host());
    let login = [host.clone(), reference("redisPassword", "file"), reference("redisUsername", "'pin:0'")];
    let wrong = format!("{}auth: {{secretStore: file}}\n", component("wrong", "state.redis", &login));
    let access = Some("host all all 127.0.0.1/32 scram-sha-256\n");
    let database = PostgresqlServer::start_with(&Setup { access, ..Setup::default() });
    let address = format!("name: connectionString, value: '{}'", database.connection_string());
    let login = [address, reference("password", "file")];
    let wrong_too = component("wrong-too", "state.postgresql\n  version: v2", &login);
    let wrong = format!("{wrong}{wrong_too}auth: {{secretStore: file}}\n");
    let probe = component("probe", "state.probe", &[reference("a", "TOKEN"), "name: b, envRef: TOKEN".to_owned()]);
    let probe = format!("{probe}auth: {{secretStore: env}}\n");
    let components = load(&written, folder.path(), &format!("{stores}{wrong}{probe}")).unwrap();
    ask_secret_stores(&written, &components).await;
    ask_state_stores(&written, &components).await;
    let text = written.text();
    for seen in [
        "***",
        "permission-denied: component wrong: ",
        "permission-denied: component wrong-too: ",
        "not-found: component mounted: ",
        "TOKEN",
    ] {
        assert!(text.contains(seen), "{seen} is not among what was written");
    }

    for yaml in malformed().into_iter().chain(damaged(folder.path())) {
        let before = written.text().len();
        for ignored in [false, true] {
            let yaml = if ignored { yaml.replace("spec:\n", "spec:\n  ignoreErrors: true\n") } else { yaml.clone() };
            if let Ok(components) = load(&written, folder.path(), &format!("{stores}{yaml}")) {
                ask_secret_stores(&written, &components).await;
                ask_state_stores(&written, &components).await;
            }
        }
        let text = written.text();
        let shown: Vec<&str> = text[before..].lines().filter(|line| line.contains(MARK)).collect();
        assert!(shown.is_empty(), "{yaml}\nshows its secret:\n{}", shown.join("\n"));
    }
    assert!(!written.text().contains(MARK));
}
