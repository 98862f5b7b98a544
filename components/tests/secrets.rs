//! Secret stores: what components and guests get of them, and what they do not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use components::properties::Properties;
use components::state::in_memory;
use components::{App, AppId, Components, Description, Faults, Field, Registry};
use host_abi::error::{Error, ErrorClass};
use host_abi::secrets::{GetRequest, Secret};
use tempfile::TempDir;

const SECRETS: &str = r#"{
    "plain": "p",
    "redis": {"password": "r", "more": {"port": 6379, "tls": true, "none": null}},
    "list": ["a", {"b": "c"}]
}"#;

const PASSWORD: Field = Field::text("password", "");
const PROBE: Description = Description { about: "", fields: &[PASSWORD], without_effect: &[] };

/// A folder of components, and of files beside them.
struct Folder(TempDir);

impl Folder {
    fn new(components: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("components/c.yaml", components.replace("FOLDER", &folder.path().display().to_string()));
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = self.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn with(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        self.write(name, text);
        self
    }

    fn load(&self, app: &App) -> Result<Components, Faults> {
        Registry::builtin().load(&[self.path().join("components")], app)
    }

    fn components(&self) -> Components {
        self.load(&App::default()).unwrap()
    }

    /// What is wrong, a line each, without the place.
    fn faults(&self, app: &App) -> Vec<String> {
        let faults = self.load(app).err().expect("faults");
        faults.iter().map(|fault| fault.problem.to_string()).collect()
    }

    /// The metadata of the component of type `state.probe`.
    fn properties(&self, app: &App) -> Properties {
        let seen = Arc::new(Mutex::new(None));
        let mut registry = Registry::builtin();
        registry.register_state_store("state.probe", "v1", PROBE, {
            let seen = Arc::clone(&seen);
            move |properties| {
                *seen.lock().unwrap() = Some(properties.clone());
                in_memory::construct(properties)
            }
        });
        registry.load(&[self.path().join("components")], app).unwrap();
        let seen = seen.lock().unwrap().take();
        seen.expect("the constructor was called")
    }
}

fn component(name: &str, component_type: &str, metadata: &[&str]) -> String {
    let items: String = metadata.iter().map(|item| format!("  - {{{item}}}\n")).collect();
    format!("---\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {component_type}\n  metadata:\n{items}")
}

fn file_store(more: &[&str]) -> String {
    component("vault", "secretstores.local.file", &[&["name: secretsFile, value: FOLDER/secrets.json"], more].concat())
}

fn mounted_store() -> String {
    component("vault", "secretstores.kubernetes", &["name: secretsFolder, value: FOLDER/mounted"])
}

fn scopes(scope: &str) -> String {
    format!("---\nkind: Configuration\nmetadata: {{name: c}}\nspec:\n  secrets:\n    scopes:\n    - {{{scope}}}\n")
}

fn kubernetes() -> App {
    App { pod_name: Some("shop-1".into()), ..App::default() }
}

fn environment(pairs: &[(&str, &str)]) -> App {
    let environment = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned().into())).collect();
    App { environment, ..App::default() }
}

fn exposed(secret: Secret) -> BTreeMap<String, String> {
    secret.into_iter().map(|(key, value)| (key, value.expose().to_owned())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

async fn get(components: &Components, store: &str, secret: &str) -> Result<BTreeMap<String, String>, Error> {
    let request = GetRequest { key: secret.to_owned(), metadata: None };
    components.secret_stores[store].get(request).await.map(exposed)
}

async fn class(components: &Components, store: &str, secret: &str) -> ErrorClass {
    get(components, store, secret).await.unwrap_err().class
}

async fn all(components: &Components, store: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let secrets = components.secret_stores[store].bulk_get(None).await.unwrap();
    secrets.into_iter().map(|(name, secret)| (name, exposed(secret))).collect()
}

async fn names(components: &Components, store: &str) -> String {
    all(components, store).await.into_keys().collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn each_value_of_a_file_is_a_secret_named_by_the_way_to_it() {
    let components = Folder::new(&file_store(&[])).with("secrets.json", SECRETS).components();
    let expected = [
        ("list:0", "a"),
        ("list:1:b", "c"),
        ("plain", "p"),
        ("redis:more:none", ""),
        ("redis:more:port", "6379"),
        ("redis:more:tls", "true"),
        ("redis:password", "r"),
    ];
    let expected: BTreeMap<_, _> = expected.iter().map(|pair| (pair.0.to_owned(), pairs(&[*pair]))).collect();
    assert_eq!(all(&components, "vault").await, expected);
    assert_eq!(get(&components, "vault", "redis:password").await, Ok(pairs(&[("redis:password", "r")])));
    assert_eq!(class(&components, "vault", "redis").await, ErrorClass::NotFound);
}

#[tokio::test]
async fn the_separator_of_a_file_can_be_another() {
    let store = file_store(&["name: nestedSeparator, value: '.'"]);
    let components = Folder::new(&store).with("secrets.json", SECRETS).components();
    assert_eq!(get(&components, "vault", "redis.more.port").await, Ok(pairs(&[("redis.more.port", "6379")])));
}

#[tokio::test]
async fn a_multi_valued_file_has_one_secret_a_member() {
    let store = file_store(&["name: multiValued, value: true"]);
    let components = Folder::new(&store).with("secrets.json", SECRETS).components();
    let redis = pairs(&[("more:none", ""), ("more:port", "6379"), ("more:tls", "true"), ("password", "r")]);
    let expected = BTreeMap::from([
        ("list".to_owned(), pairs(&[("0", "a"), ("1:b", "c")])),
        ("plain".to_owned(), pairs(&[("plain", "p")])),
        ("redis".to_owned(), redis.clone()),
    ]);
    assert_eq!(all(&components, "vault").await, expected);
    assert_eq!(get(&components, "vault", "redis").await, Ok(redis));
}

#[test]
fn a_file_that_is_none_of_secrets_is_refused_without_its_content() {
    let problem = |content: &[u8]| Folder::new(&file_store(&[])).with("secrets.json", content).faults(&App::default());
    let expected = |problem: &str| vec![format!("component vault: `secretsFile` {problem}")];
    assert_eq!(problem(b"{\"a\": hunter2}"), expected("is not JSON: line 1, column 7"));
    assert_eq!(problem(b"\"hunter2\""), expected("must hold a JSON object"));
    assert_eq!(problem(br#"{"a:b": "1", "a": {"b": "2"}}"#), expected("has two values named \"a:b\""));
    assert_eq!(problem(&vec![b' '; (16 << 20) + 1]), expected("cannot be read: over 16777216 bytes"));
    let repeated = format!("{{\"{}\": [{}0]}}", "a".repeat(1 << 20), "0,".repeat(16));
    assert_eq!(problem(repeated.as_bytes()), expected("cannot be read: over 16777216 bytes"));
    let missing = Folder::new(&file_store(&[])).faults(&App::default());
    assert_eq!(missing, expected("cannot be read: No such file or directory (os error 2)"));
    let nameless = Folder::new(&component("vault", "secretstores.local.file", &[])).faults(&App::default());
    assert_eq!(nameless, ["component vault: `secretsFile` is missing"]);
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_not_waited_for() {
    let folder = Folder::new(&file_store(&[]));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("secrets.json"), rustix::fs::FileType::Fifo, mode, 0)
        .unwrap();
    assert_eq!(folder.faults(&App::default()), ["component vault: `secretsFile` cannot be read: not a regular file"]);
}

#[tokio::test]
async fn variables_are_secrets_but_for_daprs_own() {
    let app = environment(&[("TOKEN", "t"), ("EMPTY", ""), ("DAPR_API_TOKEN", "d"), ("App_Api_Token", "a")]);
    let components = Folder::new(&component("env", "secretstores.local.env", &[])).load(&app).unwrap();
    let expected = [("EMPTY", ""), ("TOKEN", "t")].map(|pair| (pair.0.to_owned(), pairs(&[pair])));
    assert_eq!(all(&components, "env").await, BTreeMap::from(expected));
    assert_eq!(get(&components, "env", "TOKEN").await, Ok(pairs(&[("TOKEN", "t")])));
    assert_eq!(class(&components, "env", "CARGO_PKG_NAME").await, ErrorClass::NotFound);
    for reserved in ["DAPR_API_TOKEN", "dapr_anything", "App_Api_Token", "APP_API_TOKEN"] {
        assert_eq!(class(&components, "env", reserved).await, ErrorClass::PermissionDenied, "{reserved}");
    }
}

#[tokio::test]
async fn a_prefix_of_variables_is_left_out_of_their_names() {
    let prefixed = |prefix: &str| {
        let app = environment(&[("MY_A", "a"), ("my_B", "b"), ("MY_", "c"), ("OTHER", "d"), ("DAPR_X", "x")]);
        let item = format!("name: prefix, value: {prefix}");
        Folder::new(&component("env", "secretstores.local.env", &[&item])).load(&app).unwrap()
    };
    assert_eq!(all(&prefixed("MY_"), "env").await, BTreeMap::from([("A".to_owned(), pairs(&[("A", "a")]))]));
    assert_eq!(class(&prefixed("MY_"), "env", "OTHER").await, ErrorClass::NotFound);
    assert_eq!(class(&prefixed("DAPR"), "env", "_X").await, ErrorClass::PermissionDenied);
}

/// A Secret as the kubelet mounts it: a link for each key, through a link to a folder with a time in its name.
fn mount(folder: &Folder, path: &str, time: &str, values: &[(&str, &[u8])]) {
    let data = format!("..{time}");
    for (key, value) in values {
        folder.write(&format!("{path}/{data}/{key}"), value);
    }
    let mounted = folder.path().join(path);
    fs::create_dir_all(mounted.join(&data)).unwrap();
    let turn = mounted.join("..data_tmp");
    symlink(&data, &turn).unwrap();
    fs::rename(turn, mounted.join("..data")).unwrap();
    for (key, _) in values {
        let top = key.split('/').next().unwrap();
        let _ = symlink(format!("..data/{top}"), mounted.join(top));
    }
}

#[tokio::test]
async fn mounted_secrets_are_read_as_kubernetes_mounts_them() {
    let folder = Folder::new(&mounted_store());
    mount(&folder, "mounted/redis", "2026_1", &[("username", b"u"), ("password", b"p"), ("keystore", b"\xff\xfe")]);
    mount(&folder, "mounted/empty", "2026_1", &[]);
    folder.write("mounted/stray", "no folder");
    let components = folder.components();
    let redis = pairs(&[("password", "p"), ("username", "u")]);
    assert_eq!(get(&components, "vault", "redis").await, Ok(redis.clone()));
    let expected = BTreeMap::from([("empty".to_owned(), pairs(&[])), ("redis".to_owned(), redis)]);
    assert_eq!(all(&components, "vault").await, expected);
    for name in ["other", "stray", "redis/..data", "../mounted/redis", "..", "..data", "/etc", "redis/password"] {
        assert_eq!(class(&components, "vault", name).await, ErrorClass::NotFound, "{name}");
    }
}

#[tokio::test]
async fn a_secret_that_changes_is_read_anew() {
    let folder = Folder::new(&mounted_store());
    mount(&folder, "mounted/redis", "1", &[("username", b"u"), ("password", b"one")]);
    let components = folder.components();
    assert_eq!(get(&components, "vault", "redis").await, Ok(pairs(&[("password", "one"), ("username", "u")])));
    mount(&folder, "mounted/redis", "2", &[("password", b"two")]);
    assert_eq!(get(&components, "vault", "redis").await, Ok(pairs(&[("password", "two")])));
}

#[tokio::test]
async fn one_projected_volume_may_hold_every_secret() {
    let folder = Folder::new(&mounted_store());
    mount(&folder, "mounted", "1", &[("redis/password", b"p"), ("mail/token", b"t")]);
    let components = folder.components();
    assert_eq!(get(&components, "vault", "redis").await, Ok(pairs(&[("password", "p")])));
    assert_eq!(names(&components, "vault").await, "mail,redis");
}

#[tokio::test]
async fn links_that_lead_out_of_the_folder_are_not_followed() {
    let folder = Folder::new(&mounted_store()).with("outside/key", "hunter2").with("mounted/inside/other", "o");
    symlink(folder.path().join("outside"), folder.path().join("mounted/absolute")).unwrap();
    symlink("../outside", folder.path().join("mounted/relative")).unwrap();
    symlink("../../outside/key", folder.path().join("mounted/inside/key")).unwrap();
    let components = folder.components();
    for name in ["absolute", "relative", "inside"] {
        let error = get(&components, "vault", name).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable, "{error}");
        assert!(!error.message.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn mounted_secrets_are_read_up_to_a_limit_and_no_device_or_fifo_at_all() {
    let folder = Folder::new(&mounted_store()).with("mounted/large/key", vec![b'a'; (16 << 20) - 2]);
    let components = folder.components();
    assert_eq!(class(&components, "vault", "large").await, ErrorClass::Unavailable);
    folder.write("mounted/fifo/other", "o");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let fifo = folder.path().join("mounted/fifo/key");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = get(&components, "vault", "fifo").await.unwrap_err();
    assert_eq!(error.to_string(), "unavailable: component vault: fifo: key: not a regular file");
}

#[tokio::test]
async fn a_folder_of_secrets_that_is_not_there_is_named() {
    let components = Folder::new(&mounted_store()).components();
    let error = get(&components, "vault", "redis").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "unavailable: component vault: Secrets are to be mounted below `secretsFolder` (by default \
         /var/run/secrets/dapr.wasm), each in a folder of its name: No such file or directory (os error 2)"
    );
}

/// A component whose item `password` is what `reference` says, of a store.
fn probe(reference: &str, auth: &str) -> String {
    let item = format!("name: password, {reference}");
    format!("{}{auth}\n", component("probe", "state.probe", &[&item]))
}

fn resolved(reference: &str) -> Option<String> {
    let yaml = probe(reference, "auth: {secretStore: vault}") + &file_store(&["name: multiValued, value: true"]);
    let app = environment(&[("TOKEN", "t")]);
    let properties = Folder::new(&yaml).with("secrets.json", SECRETS).properties(&app);
    properties.text(&PASSWORD).map(str::to_owned)
}

#[test]
fn a_component_gets_the_secrets_it_refers_to() {
    assert_eq!(resolved("secretKeyRef: {name: redis, key: password}").as_deref(), Some("r"));
    assert_eq!(resolved("secretKeyRef: {name: plain}").as_deref(), Some("p"), "the key is the name by default");
    assert_eq!(resolved("secretKeyRef: {name: plain, key: ''}").as_deref(), Some("p"));
    assert_eq!(resolved("value: written, secretKeyRef: {name: plain}").as_deref(), Some("p"));
    assert_eq!(resolved("envRef: TOKEN, secretKeyRef: {name: plain}").as_deref(), Some("t"));
    assert_eq!(resolved("value: written, envRef: TOKEN, secretKeyRef: {name: plain}").as_deref(), Some("p"));
    assert_eq!(resolved("value: written, secretKeyRef: {name: ''}").as_deref(), Some("written"));
}

#[test]
fn the_store_of_a_component_is_written_in_two_ways() {
    for auth in ["auth: {secretStore: vault}", "auth: {secretstore: vault}"] {
        let folder = Folder::new(&(file_store(&[]) + &probe("secretKeyRef: {name: plain}", auth)));
        let properties = folder.with("secrets.json", SECRETS).properties(&App::default());
        assert_eq!(properties.text(&PASSWORD), Some("p"), "{auth}");
    }
}

/// The one fault of a component with this reference, beside a file of secrets with several values each.
fn fault(reference: &str, auth: &str, app: &App) -> String {
    let item = format!("name: redisPassword, {reference}");
    let yaml = component("cache", "state.in-memory", &[&item]);
    let yaml = format!("{yaml}{auth}\n{}", file_store(&["name: multiValued, value: true"]));
    let faults = Folder::new(&yaml).with("secrets.json", SECRETS).faults(app);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].strip_prefix("component cache: `redisPassword` refers to the secret ").unwrap().to_owned()
}

#[test]
fn a_reference_to_nothing_says_what_is_known() {
    let auth = "auth: {secretStore: vault}";
    let app = App::default();
    assert_eq!(
        fault("secretKeyRef: {name: other}", auth, &app),
        "\"other\": the secret store vault has no such secret; it has: list, plain, redis"
    );
    assert_eq!(
        fault("secretKeyRef: {name: list, key: '2'}", auth, &app),
        "\"list\": the secret has no key \"2\"; it has: 0, 1:b"
    );
    assert_eq!(
        fault("secretKeyRef: {name: redis}", "auth: {secretStore: safe}", &app),
        "\"redis\": there is no secret store \"safe\"; known: vault"
    );
    for auth in ["", "auth: {}", "auth: {secretStore: ''}"] {
        assert_eq!(
            fault("secretKeyRef: {name: redis}", auth, &app),
            "\"redis\": the component names no secret store (`auth.secretStore`); known: vault"
        );
    }
}

#[test]
fn a_component_in_kubernetes_that_names_no_store_means_its_secrets() {
    assert_eq!(
        fault("secretKeyRef: {name: redis}", "", &kubernetes()),
        "\"redis\": the secret store kubernetes cannot read it: unavailable: Secrets are to be mounted below \
         `secretsFolder` (by default /var/run/secrets/dapr.wasm), each in a folder of its name: No such file or directory \
         (os error 2)"
    );
    let configured = mounted_store().replace("vault", "kubernetes");
    let folder = Folder::new(&(probe("secretKeyRef: {name: redis, key: password}", "") + &configured));
    mount(&folder, "mounted/redis", "1", &[("password", b"p")]);
    assert_eq!(folder.properties(&kubernetes()).text(&PASSWORD), Some("p"));
}

#[test]
fn the_store_of_kubernetes_is_there_in_kubernetes_alone() {
    let stores = |app: &App| Folder::new("").load(app).unwrap().secret_stores.into_keys().collect::<Vec<_>>();
    assert_eq!(stores(&App::default()), [""; 0]);
    assert_eq!(stores(&kubernetes()), ["kubernetes"]);
}

/// The secret store `name`, whose file is named by a secret of the store `needs`.
fn dependent(name: &str, needs: &str) -> String {
    let item = "name: secretsFile, secretKeyRef: {name: file}";
    format!("{}auth: {{secretStore: {needs}}}\n", component(name, "secretstores.local.file", &[item]))
}

#[tokio::test]
async fn a_secret_store_may_have_its_secrets_of_another() {
    let first = component("a", "secretstores.local.env", &["name: prefix, value: MY_"]);
    let folder = Folder::new(&(dependent("c", "b") + &dependent("b", "a") + &first));
    let file = |name: &str| folder.path().join(name).display().to_string();
    folder.write("b.json", format!("{{\"file\": {:?}}}", file("c.json")));
    folder.write("c.json", "{\"deep\": \"secret\"}");
    let components = folder.load(&environment(&[("MY_file", &file("b.json"))])).unwrap();
    assert_eq!(get(&components, "c", "deep").await, Ok(pairs(&[("deep", "secret")])));
}

#[test]
fn secret_stores_that_need_one_another_are_refused() {
    let folder = Folder::new(&(dependent("a", "b") + &dependent("b", "a") + &dependent("c", "c")));
    let fault = |name: &str, needs: &str| {
        format!("component {name}: it needs the secret store {needs:?}, and those need one another in a circle")
    };
    assert_eq!(folder.faults(&App::default()), [fault("a", "b"), fault("b", "a"), fault("c", "c")]);
}

#[test]
fn a_secret_store_out_of_scope_is_not_there() {
    let yaml = format!("{}scopes: [shop]\n{}", file_store(&[]), component("cache", "state.in-memory", &[]));
    let folder = Folder::new(&yaml).with("secrets.json", SECRETS);
    let stores = |id: &str| {
        let app = App { id: AppId::new(id).ok(), ..App::default() };
        folder.load(&app).unwrap().secret_stores.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(stores("shop"), ["vault"]);
    assert_eq!(stores("other"), [""; 0]);
    let yaml = component("cache", "state.in-memory", &["name: x, secretKeyRef: {name: plain}"])
        + "auth: {secretStore: vault}\n"
        + &file_store(&[])
        + "scopes: [shop]\n";
    let faults = Folder::new(&yaml).with("secrets.json", SECRETS).faults(&App::default());
    let expected =
        "component cache: `x` refers to the secret \"plain\": there is no secret store \"vault\"; known: none";
    assert_eq!(faults, [expected]);
}

#[test]
fn a_component_without_its_secret_is_left_out_if_it_says_so() {
    let yaml = component("cache", "state.in-memory", &["name: x, secretKeyRef: {name: other}"])
        .replace("spec:\n", "spec:\n  ignoreErrors: true\n");
    assert!(Folder::new(&yaml).components().state_stores.is_empty());
}

#[tokio::test]
async fn a_scope_lets_guests_have_what_it_allows() {
    let folder = |scope: &str| {
        let yaml = file_store(&["name: multiValued, value: true"]) + &scopes(scope);
        Folder::new(&yaml).with("secrets.json", SECRETS).components()
    };
    for (scope, allowed) in [
        ("storeName: other, defaultAccess: deny", "list,plain,redis"),
        ("storeName: vault", "list,plain,redis"),
        ("storeName: vault, defaultAccess: Deny", ""),
        ("storeName: vault, defaultAccess: allow, deniedSecrets: [plain, nothing]", "list,redis"),
        ("storeName: vault, defaultAccess: deny, allowedSecrets: [plain, nothing]", "plain"),
        ("storeName: vault, allowedSecrets: [plain, redis], deniedSecrets: [plain]", "plain,redis"),
    ] {
        let components = folder(scope);
        assert_eq!(names(&components, "vault").await, allowed, "{scope}");
        for name in ["list", "plain", "redis"] {
            let got = get(&components, "vault", name).await.map(drop).map_err(|error| error.to_string());
            let denied = format!("permission-denied: component vault: access to the secret {name:?} is denied");
            let expected = if allowed.split(',').any(|allowed| allowed == name) { Ok(()) } else { Err(denied) };
            assert_eq!(got, expected, "{scope}");
        }
    }
}

#[tokio::test]
async fn what_is_denied_is_denied_whether_it_is_there_or_not() {
    let yaml = file_store(&[]) + &scopes("storeName: vault, defaultAccess: deny, allowedSecrets: [absent]");
    let components = Folder::new(&yaml).with("secrets.json", SECRETS).components();
    assert_eq!(class(&components, "vault", "nothing").await, ErrorClass::PermissionDenied);
    assert_eq!(class(&components, "vault", "absent").await, ErrorClass::NotFound);
    assert_eq!(class(&components, "vault", "").await, ErrorClass::InvalidArgument);
}

#[test]
fn scopes_do_not_bind_components() {
    let yaml = probe("secretKeyRef: {name: plain}", "auth: {secretStore: vault}")
        + &file_store(&[])
        + &scopes("storeName: vault, defaultAccess: deny");
    let properties = Folder::new(&yaml).with("secrets.json", SECRETS).properties(&App::default());
    assert_eq!(properties.text(&PASSWORD), Some("p"));
}

#[test]
fn malformed_scopes_are_faults_with_their_place() {
    let faults = |yaml: &str| {
        let folder = Folder::new(yaml);
        let faults = folder.load(&App::default()).err().expect("faults").to_string();
        faults.replace(&format!("{}/components/", folder.path().display()), "")
    };
    let missing = "c.yaml: document 1, line 7: spec.secrets.scopes[0]: missing field `storeName`";
    assert_eq!(faults(&scopes("defaultAccess: deny")), missing);
    assert_eq!(
        faults(&scopes("storeName: vault, defaultAccess: never")),
        "c.yaml: document 1, line 7: spec.secrets.scopes[0]: `defaultAccess` must be `allow` or `deny`"
    );
    assert_eq!(
        faults(&scopes("storeName: vault, allowedSecrets: {a: b}")),
        "c.yaml: document 1, line 7: spec.secrets.scopes[0].allowedSecrets: invalid type: map, expected a sequence"
    );
    assert_eq!(
        faults(&(scopes("storeName: vault") + &scopes("storeName: vault"))),
        "c.yaml: document 2, line 9: the secret store \"vault\" has a scope already, in c.yaml: document 1, line 2"
    );
}

#[test]
fn a_configuration_of_other_things_is_nothing_to_secrets() {
    let yaml = "kind: Configuration\nmetadata: {name: c}\nspec: {tracing: {samplingRate: '1'}}\n---\n\
                kind: Configuration\n---\nkind: Configuration\nspec: {secrets: {}}\n";
    assert!(Folder::new(yaml).load(&App::default()).is_ok());
}

#[tokio::test]
async fn a_name_that_a_guest_chose_is_not_repeated_at_any_length() {
    let components = Folder::new(&file_store(&[])).with("secrets.json", SECRETS).components();
    let error = get(&components, "vault", &"a".repeat(1 << 20)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::NotFound);
    assert!(error.message.len() < 200, "{} bytes", error.message.len());
}
