//! Folders of Component YAML, good and bad.

#[path = "support/log.rs"]
mod log;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use components::manifest::{self, Problem};
use components::properties::Properties;
use components::{App, AppId, Components, Description, Faults, Field, Registry};
use host_abi::state::{GetRequest, GetResponse, SetRequest, StateStore};
use tempfile::TempDir;

const CACHE: &str = "
kind: Component
metadata: {name: cache}
spec: {type: state.in-memory}
";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    folder
}

fn app(id: &str) -> App {
    App { id: AppId::new(id).ok(), ..App::default() }
}

fn load(files: &[(&str, &str)], app: &App) -> Result<Components, Faults> {
    Registry::builtin().load(&[folder(files).path()], app)
}

fn names(components: &Components) -> Vec<&str> {
    components.state_stores.keys().map(String::as_str).collect()
}

/// What is wrong with the one file `c.yaml`, a line each, without the folder.
fn faults(text: &str) -> Vec<String> {
    let folder = folder(&[("c.yaml", text)]);
    let faults = Registry::builtin().load(&[folder.path()], &App::default()).err().expect("faults");
    let prefix = format!("{}/", folder.path().display());
    faults.to_string().replace(&prefix, "").lines().map(str::to_owned).collect()
}

#[test]
fn a_file_may_begin_with_a_byte_order_mark() {
    let components = load(&[("c.yaml", &format!("\u{feff}{CACHE}"))], &App::default()).expect("a component");
    assert_eq!(names(&components), ["cache"]);
}

/// A type of a test's own.
const OWN: Description = Description { about: "", fields: &[], without_effect: &[] };

fn value<'a>(properties: &'a Properties, name: &'static str) -> Option<&'a str> {
    properties.text(&Field::text(name, ""))
}

/// The metadata that a component named `probe` of type `state.probe` is constructed with.
fn properties(text: &str, app: &App) -> Properties {
    let folder = folder(&[("c.yaml", text)]);
    let seen = Arc::new(Mutex::new(None));
    let mut registry = Registry::builtin();
    registry.register_state_store("state.probe", "v1", OWN, {
        let seen = Arc::clone(&seen);
        move |properties| {
            *seen.lock().unwrap() = Some(properties.clone());
            Ok(Arc::new(Echo))
        }
    });
    registry.load(&[folder.path()], app).unwrap();
    let seen = seen.lock().unwrap().take();
    seen.expect("the constructor was called")
}

/// Answers with the key.
struct Echo;

#[async_trait::async_trait]
impl StateStore for Echo {
    async fn get(&self, request: GetRequest) -> Result<GetResponse, host_abi::error::Error> {
        Ok(GetResponse { data: request.key.into(), ..GetResponse::default() })
    }

    async fn set(&self, _: SetRequest) -> Result<(), host_abi::error::Error> {
        Ok(())
    }

    async fn delete(&self, _: host_abi::state::DeleteRequest) -> Result<(), host_abi::error::Error> {
        Ok(())
    }

    async fn transact(&self, _: Vec<host_abi::state::Operation>) -> Result<(), host_abi::error::Error> {
        Ok(())
    }
}

#[test]
fn a_folder_is_read_in_order_and_not_below_itself() {
    let named = |name| CACHE.replace("cache", name);
    let folder = folder(&[
        ("b.yml", &named("second")),
        ("a.yaml", &format!("{}---{}", named("first"), named("also-first"))),
        ("c.json", &named("json")),
        ("below/d.yaml", &named("below")),
        ("e.yaml/f.yaml", &named("in-a-folder-named-like-a-file")),
    ]);
    let mut faults = Faults::default();
    let documents = manifest::read(&manifest::sources(&[folder.path()]), &mut faults);
    let order: Vec<&str> = documents.components.iter().map(|manifest| manifest.name.as_str()).collect();
    assert_eq!(order, ["first", "also-first", "second"]);
    assert!(faults.is_empty(), "{faults}");
}

#[test]
fn a_path_may_be_a_file_of_any_name() {
    let folder = folder(&[("components", CACHE), ("other.yaml", "not a component")]);
    let components = Registry::builtin().load(&[folder.path().join("components")], &App::default()).unwrap();
    assert_eq!(names(&components), ["cache"]);
}

#[test]
fn several_paths_are_read_together() {
    let (one, other) = (folder(&[("c.yaml", CACHE)]), folder(&[("c.yaml", &CACHE.replace("cache", "more"))]));
    let components = Registry::builtin().load(&[one.path(), other.path()], &App::default()).unwrap();
    assert_eq!(names(&components), ["cache", "more"]);
    let faults = Registry::builtin().load(&[one.path(), one.path()], &App::default()).err().unwrap();
    assert!(faults.to_string().contains("component cache: the name is already taken in"), "{faults}");
}

#[test]
fn a_path_that_is_not_there_is_named() {
    let faults = Registry::builtin().load(&[Path::new("/nowhere/at/all")], &App::default()).err().unwrap();
    assert_eq!(faults.to_string(), "/nowhere/at/all: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_file_that_has_no_end_or_no_writer_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo.yaml");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero.yaml")).unwrap();
    let faults = Registry::builtin().load(&[folder.path()], &App::default()).err().expect("faults").to_string();
    let lines: Vec<_> = faults.lines().map(|line| line.rsplit_once('/').unwrap().1).collect();
    assert_eq!(
        lines,
        ["fifo.yaml: cannot be read: not a regular file", "zero.yaml: cannot be read: not a regular file"]
    );
}

#[test]
fn documents_of_other_kinds_and_empty_ones_are_skipped() {
    let text = format!(
        "# a comment\n---\n# another\n---\nkind: Subscription\nspec: [anything, {{at: all}}]\n--- # here\n{CACHE}\n---\nlevel: 1\n---\n\
         apiVersion: core.oam.dev/v1beta1\nkind: Component\nspec: [anything]\n---\n"
    );
    let components = load(&[("c.yaml", &text)], &App::default()).unwrap();
    assert_eq!(names(&components), ["cache"]);
}

#[test]
fn fields_that_are_not_known_are_tolerated() {
    let text = "
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: cache, namespace: prod, labels: {a: b}}
spec:
  type: state.in-memory
  version: v1
  initTimeout: 5s
  novelty: 1
  metadata:
  - {name: actorStateStore, value: true, novelty: 2}
auth: {secretStore: mysecrets}
novelty: 3
";
    assert_eq!(names(&load(&[("c.yaml", text)], &App::default()).unwrap()), ["cache"]);
}

#[test]
fn all_faults_of_a_folder_are_reported_together() {
    let folder = folder(&[
        ("a.yaml", "kind: Component\nmetadata: {name: broken\n---\nkind: Component\nmetadata: {}\nspec: {type: x}\n"),
        (
            "b.yaml",
            &format!("{CACHE}---{CACHE}---\nkind: Component\nmetadata: {{name: odd}}\nspec: {{type: state.odd}}\n"),
        ),
        ("c.yaml", "kind: Component\nmetadata: {name: bare}\nspec:\n  type: state.in-memory\n  version: [v1]\n"),
    ]);
    fs::write(folder.path().join("d.yaml"), [0xff, 0xfe]).unwrap();
    let faults = Registry::builtin().load(&[folder.path()], &App::default()).err().unwrap().to_string();
    let faults = faults.replace(&format!("{}/", folder.path().display()), "");
    let state_stores = if cfg!(all(feature = "postgresql", feature = "redis", feature = "sqlite")) {
        "state.in-memory v1, state.postgresql v2, state.redis v1, state.sqlite v1"
    } else {
        "state.in-memory v1"
    };
    let secret_stores = "secretstores.kubernetes v1, secretstores.local.env v1, secretstores.local.file v1";
    let known = format!("{secret_stores}, {state_stores}");
    let expected = [
        "a.yaml: document 1, line 3: did not find expected ',' or '}'",
        "a.yaml: document 2, line 4: the component has no `metadata.name`",
        "b.yaml: document 2, line 6: component cache: the name is already taken in b.yaml: document 1, line 2",
        &format!("b.yaml: document 3, line 10: component odd: unknown type state.odd version v1; known: {known}"),
        "c.yaml: document 1, line 5: spec.version: invalid type: sequence, expected a string",
        "d.yaml: cannot be read: not UTF-8",
    ];
    assert_eq!(faults, expected.join("\n"));
}

#[test]
fn a_document_that_is_not_yaml_hides_no_other() {
    let text = format!("kind: [\n---{CACHE}---\n\tkind: Component\n");
    let lines = faults(&text);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("c.yaml: document 1, line "), "{lines:?}");
    assert!(lines[1].starts_with("c.yaml: document 3, line 7: "), "{lines:?}");
}

#[test]
fn the_first_version_has_three_names_and_types_have_no_case() {
    for version in ["", "version: v0", "version: v1", "version: V1"] {
        let text = format!("kind: Component\nmetadata: {{name: cache}}\nspec:\n  type: State.In-Memory\n  {version}\n");
        assert!(load(&[("c.yaml", &text)], &App::default()).is_ok(), "{version:?}");
    }
    let text = CACHE.replace("state.in-memory", "state.in-memory, version: v2");
    assert!(faults(&text)[0].contains("unknown type state.in-memory version v2"));
}

/// As in Go's JSON.
#[test]
fn names_of_fields_have_no_case() {
    let text = "
APIVersion: dapr.io/v1alpha1
Kind: Component
Metadata: {NAME: cache}
SPEC:
  Type: state.probe
  MetaData:
  - {Name: Some, VALUE: text}
  - {name: other, SecretKeyRef: {Name: s, Key: s}}
Auth: {SECRETSTORE: vault}
---
kind: Component
metadata: {name: vault}
spec:
  type: secretstores.local.file
  metadata: [{name: secretsFile, value: FILE}]
";
    let secrets = folder(&[("secrets.json", r#"{"s": "the secret"}"#)]);
    let text = text.replace("FILE", &secrets.path().join("secrets.json").display().to_string());
    let properties = properties(&text, &App::default());
    assert_eq!((value(&properties, "some"), value(&properties, "other")), (Some("text"), Some("the secret")));

    let scoped = format!("{CACHE}Scopes: [shop]\n");
    assert!(names(&load(&[("c.yaml", &scoped)], &app("other")).unwrap()).is_empty());
    // What is data keeps its case.
    let policies = "
Kind: Resiliency
Metadata: {Name: r}
Spec: {Policies: {Timeouts: {Short: 1s}}, Targets: {Components: {cache: {Outbound: {Timeout: SHORT}}}}}
";
    assert!(faults(policies)[0].contains("SHORT"), "{:?}", faults(policies));
    let wrong = faults("Kind: Component\nMetadata: {Name: cache}\nSpec:\n  Type: state.in-memory\n  Version: [1]\n");
    assert_eq!(wrong, ["c.yaml: document 1, line 5: Spec.Version: invalid type: sequence, expected a string"]);
}

#[test]
fn a_component_is_there_for_the_apps_of_its_scopes() {
    let scoped = format!("{CACHE}scopes: [shop, desk]\n---{}scopes: []\n", CACHE.replace("cache", "open"));
    let visible = |app: &App| names(&load(&[("c.yaml", &scoped)], app).unwrap()).join(",");
    assert_eq!(visible(&app("shop")), "cache,open");
    assert_eq!(visible(&app("other")), "open");
    assert_eq!(visible(&App::default()), "open");
}

#[test]
fn a_component_out_of_scope_fails_nobody() {
    let text = "kind: Component\nmetadata: {name: odd}\nspec: {type: state.odd}\nscopes: [other]\n";
    assert!(load(&[("c.yaml", text)], &app("shop")).is_ok());
    assert!(load(&[("c.yaml", text)], &app("other")).is_err());
}

#[test]
fn a_component_is_there_for_the_apps_of_its_namespace() {
    let placed = |name, namespace| {
        format!("kind: Component\nmetadata: {{name: {name}{namespace}}}\nspec: {{type: state.in-memory}}\n")
    };
    let text =
        [placed("ours", ", namespace: shop"), placed("theirs", ", namespace: desk"), placed("open", "")].join("---\n");
    let visible = |namespace: Option<&str>| {
        let app = App { namespace: namespace.map(str::to_owned), ..App::default() };
        names(&load(&[("c.yaml", &text)], &app).unwrap()).join(",")
    };
    assert_eq!(visible(Some("shop")), "open,ours");
    // Outside of Kubernetes nobody knows.
    assert_eq!(visible(None), "open,ours,theirs");
}

#[test]
fn apps_may_have_a_component_of_their_own_under_one_name() {
    let scoped = |app| format!("{CACHE}scopes: [{app}]\n");
    let text = [scoped("shop"), scoped("desk")].join("---");
    for id in ["shop", "desk"] {
        assert_eq!(names(&load(&[("c.yaml", &text)], &app(id)).unwrap()), ["cache"]);
    }
    assert!(load(&[("c.yaml", &[scoped("shop"), scoped("shop, desk")].join("---"))], &app("shop")).is_err());
}

#[test]
fn a_name_that_is_not_known_is_ignored_with_a_warning() {
    let text = "
kind: Component
metadata: {name: cache}
spec:
  type: state.in-memory
  metadata:
  - {name: KEYPREFIX, value: none}
  - {name: actorStateStore, value: true}
  - {name: ttlInSecond, value: hunter2}
  - {name: redisHost, value: hunter2}
";
    let warnings = log::warnings(|| assert!(load(&[("c.yaml", text)], &App::default()).is_ok()));
    let expected = "component cache: state.in-memory knows no ttlInSecond, redisHost; known: keyPrefix, ";
    assert!(warnings.contains(expected) && warnings.contains("c.yaml: document 1, line 2"), "{warnings}");
    assert!(warnings.lines().count() == 1 && !warnings.contains("hunter2"), "{warnings}");
}

#[test]
fn what_has_no_effect_because_of_its_name_or_place_is_a_warning() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {kind: Component, metadata: {name: cache}, spec: {type: state.in-memory}}\n";
    let resiliency = "kind: Resiliency\nmetadata: {name: r}\nspec: {targets: {components: {cash: {}, cache: {}}}}\n";
    let scopes = "kind: Configuration\nmetadata: {name: c}\nspec: {secrets: {scopes: [{storeName: vualt}]}}\n";
    let unset = "kind: Component\nmetadata: {name: c}\nspec:\n  type: state.in-memory\n  metadata: [{name: keyPrefix, envRef: NOBODY_SET}]\n";
    let subscription = "apiVersion: dapr.io/v2alpha1\nkind: Subscription\nmetadata: {name: s}\n";
    let guarded = "kind: Configuration\nmetadata: {name: c}\nspec: {accessControl: {defaultAction: deny}}\n";
    for (text, word) in [
        (list, "a list is not read"),
        (resiliency, "cash"),
        (scopes, "vualt"),
        (unset, "NOBODY_SET"),
        (subscription, "a Subscription has no effect"),
        (guarded, "`spec.accessControl` has no effect"),
    ] {
        let text = format!("{CACHE}---\n{text}");
        let warnings = log::warnings(|| assert!(load(&[("c.yaml", &text)], &App::default()).is_ok()));
        assert!(warnings.contains(word) && warnings.lines().count() == 1, "{warnings}");
    }
}

#[test]
fn a_folder_may_hold_components_of_building_blocks_that_are_not_here() {
    let others: String =
        ["pubsub.redis", "bindings.cron", "Configuration.redis", "lock.redis", "middleware.http.oauth2"]
            .map(|name| {
                format!("---\nkind: Component\nmetadata: {{name: other}}\nspec: {{type: {name}, version: v1}}\n")
            })
            .concat();
    let text = format!("{CACHE}{others}");
    let warnings = log::warnings(|| {
        let components = load(&[("c.yaml", &text)], &App::default()).unwrap();
        assert_eq!(names(&components), ["cache"]);
    });
    assert_eq!(warnings.matches("left out: this runtime has no such building block").count(), 5, "{warnings}");
    let misspelt = CACHE.replace("state.in-memory", "stat.in-memory");
    assert!(faults(&misspelt)[0].contains("unknown type stat.in-memory"));
}

#[test]
fn a_type_has_all_names_that_dapr_gives_it() {
    let other = "kind: Component\nmetadata: {name: store}\nspec:\n  type: state.sqlite3\n  metadata: [{name: connectionString, value: data.db}]\n";
    assert_eq!(names(&load(&[("c.yaml", other)], &App::default()).unwrap()), ["store"]);
}

#[test]
fn a_file_is_read_whatever_the_case_of_its_extension() {
    assert_eq!(names(&load(&[("STATE.YAML", CACHE)], &App::default()).unwrap()), ["cache"]);
}

/// Of the cache and the environment's secrets.
fn with_configuration(spec: &str) -> String {
    let env = "kind: Component\nmetadata: {name: env}\nspec: {type: secretstores.local.env, version: v1}\n";
    format!("{CACHE}---\n{env}---\nkind: Configuration\nmetadata: {{name: c}}\nspec: {spec}\n")
}

/// What an app whose Configuration is called `named` has.
fn configured(text: &str, named: Option<&str>) -> (usize, usize) {
    let app = App { configuration: named.map(str::to_owned), ..App::default() };
    let components = load(&[("c.yaml", text)], &app).unwrap();
    (components.state_stores.len(), components.secret_stores.len())
}

#[test]
fn a_configuration_denies_types_of_components() {
    for (deny, left) in [
        ("[secretstores.local.env]", (1, 0)),
        ("[SecretStores.Local.Env/v1]", (1, 0)),
        ("[secretstores.local.env/v2, local.env]", (1, 1)),
        ("[state.in-memory/v1]", (0, 1)),
        ("[state.in-memory, secretstores.local.env]", (0, 0)),
    ] {
        assert_eq!(configured(&with_configuration(&format!("{{components: {{deny: {deny}}}}}")), None), left, "{deny}");
    }
}

#[test]
fn a_type_is_denied_by_all_of_its_names() {
    let store = "kind: Component\nmetadata: {name: store}\nspec:\n  type: state.sqlite3\n  metadata: [{name: connectionString, value: data.db}]\n";
    let deny = "---\nkind: Configuration\nspec: {components: {deny: [state.sqlite]}}\n";
    assert_eq!(configured(&[store, deny].concat(), None), (0, 0));
}

#[test]
fn the_secrets_of_kubernetes_are_denied_by_their_type_with_and_without_a_component() {
    let app = App { pod_name: Some("pod".to_owned()), ..App::default() };
    let stores = |text: &str| load(&[("c.yaml", text)], &app).unwrap().secret_stores.len();
    let deny = "kind: Configuration\nspec: {components: {deny: [secretstores.kubernetes]}}\n";
    let component = "---\nkind: Component\nmetadata: {name: kubernetes}\nspec: {type: secretstores.kubernetes}\n";
    assert_eq!(stores(""), 1);
    assert_eq!(stores(deny), 0);
    assert_eq!(stores(&[deny, component].concat()), 0);
}

/// An image can bring a Configuration, and a pod can name it.
#[test]
fn no_configuration_of_a_container_takes_the_place_of_the_operators() {
    let deny = "kind: Configuration\nmetadata: {name: node}\nspec: {components: {deny: [state.in-memory]}}\n";
    let [node, own] = [folder(&[("node.yaml", deny)]), folder(&[("own.yaml", &with_configuration("{}"))])];
    let [node, own] = [&node, &own].map(|folder| manifest::sources(&[folder.path()]));
    for named in [None, Some("c"), Some("node")] {
        let app = App { configuration: named.map(str::to_owned), ..App::default() };
        let components = Registry::builtin().load_sources(&node, &own, &app).unwrap();
        assert_eq!((components.state_stores.len(), components.secret_stores.len()), (0, 1), "{named:?}");
    }
}

#[test]
fn a_configuration_closes_building_blocks() {
    for (api, left) in [
        ("{denied: [{name: secrets, version: v1}]}", (1, 0)),
        ("{allowed: [{name: state}, {name: invoke}]}", (1, 0)),
        ("{allowed: []}", (1, 1)),
        ("{allowed: [{name: secrets}, {name: state}], denied: [{name: State}]}", (0, 1)),
    ] {
        assert_eq!(configured(&with_configuration(&format!("{{api: {api}}}")), None), left, "{api}");
    }
}

#[test]
fn the_configuration_that_an_app_names_alone_counts_if_it_is_there() {
    let second = "---\nkind: Configuration\nmetadata: {name: d}\nspec: {api: {denied: [{name: state}]}}\n";
    let text = with_configuration("{api: {denied: [{name: secrets}]}}") + second;
    assert_eq!(configured(&text, None), (0, 0));
    assert_eq!(configured(&text, Some("c")), (1, 0));
    assert_eq!(configured(&text, Some("d")), (0, 1));
    let warnings = log::warnings(|| assert_eq!(configured(&text, Some("e")), (0, 0)));
    assert!(warnings.contains("not among the components"), "{warnings}");
}

#[test]
fn outside_of_kubernetes_the_namespace_is_a_variable() {
    let environment = [("NAMESPACE".to_owned(), "prod".to_owned().into())];
    let app = App { environment: environment.into(), ..app("shop") };
    let scoped = CACHE.replace("{name: cache}", "{name: cache, namespace: test}");
    assert_eq!(load(&[("c.yaml", &scoped)], &app).unwrap().state_stores.len(), 0);
    let scoped = scoped.replace("test", "prod");
    assert_eq!(load(&[("c.yaml", &scoped)], &app).unwrap().state_stores.len(), 1);
}

/// `ture` for `true` would have passwords sent in the clear.
#[cfg(feature = "redis")]
#[test]
fn a_flag_is_true_or_false() {
    let redis = |value| {
        format!(
            "kind: Component\nmetadata: {{name: c}}\nspec:\n  type: state.redis\n  metadata:\n  - {{name: redisHost, value: localhost}}\n  \
             - {{name: enableTLS, value: {value}}}\n"
        )
    };
    for value in ["true", "YES", "off", "''", "0"] {
        assert!(load(&[("c.yaml", &redis(value))], &App::default()).is_ok(), "{value}");
    }
    let expected = "c.yaml: document 1, line 1: component c: `enableTLS` must be `true` or `false`";
    assert_eq!(faults(&redis("ture")), [expected]);
}

#[test]
fn what_dapr_has_and_this_has_not_is_refused() {
    let of_every_store =
        ["primaryEncryptionKey", "secondaryEncryptionKey", "outboxPublishPubsub", "outboxPublishTopic"];
    let mut refused: Vec<_> = of_every_store.map(|name| ("state.in-memory", name)).into();
    if cfg!(all(feature = "postgresql", feature = "redis")) {
        refused.extend(["useEntraID", "useAzureAD", "useOIDC"].map(|name| ("state.redis", name)));
        refused.extend(["useAzureAD", "useAWSIAM"].map(|name| ("state.postgresql, version: v2", name)));
    }
    for (component_type, name) in refused {
        let text = format!(
            "kind: Component\nmetadata: {{name: c}}\nspec: {{type: {component_type}, metadata: [{{name: {name}, value: true}}]}}\n"
        );
        let expected = format!("c.yaml: document 1, line 1: component c: `{name}` is not supported yet");
        assert_eq!(faults(&text), [expected], "{component_type}");
    }
}

#[test]
fn a_component_that_says_ignore_errors_is_left_out() {
    let text =
        format!("kind: Component\nmetadata: {{name: odd}}\nspec: {{type: state.odd, ignoreErrors: true}}\n---{CACHE}");
    assert_eq!(names(&load(&[("c.yaml", &text)], &App::default()).unwrap()), ["cache"]);
}

#[test]
fn an_init_timeout_that_is_no_time_is_the_default() {
    let init_timeout = |value: &str| {
        let text = CACHE.replace("state.in-memory", &format!("state.in-memory, initTimeout: {value}"));
        let folder = folder(&[("c.yaml", &text)]);
        manifest::read(&manifest::sources(&[folder.path()]), &mut Faults::default()).components[0]
            .init_timeout
            .as_millis()
    };
    assert_eq!(init_timeout("1m30s"), 90_000);
    for value in ["soon", "-1s", "0", "''"] {
        assert_eq!(init_timeout(value), 5_000, "{value}");
    }
}

#[test]
fn any_scalar_is_taken_as_a_string() {
    let properties = properties(
        "
kind: Component
metadata: {name: probe}
spec:
  type: state.probe
  metadata:
  - {name: port, value: 6379}
  - {name: negative, value: -1}
  - {name: ratio, value: 1.5}
  - {name: tls, value: true}
  - {name: word, value: plain}
  - {name: quoted, value: '007'}
  - {name: nothing, value: null}
  - {name: absent}
",
        &App::default(),
    );
    let text = |name| value(&properties, name);
    assert_eq!((text("port"), text("negative"), text("ratio")), (Some("6379"), Some("-1"), Some("1.5")));
    assert_eq!((text("tls"), text("word"), text("quoted")), (Some("true"), Some("plain"), Some("007")));
    assert_eq!((text("nothing"), text("absent")), (None, None));
}

#[test]
fn templates_and_variables_are_resolved_for_the_app() {
    let text = "
kind: Component
metadata: {name: probe}
spec:
  type: state.probe
  metadata:
  - {name: consumer, value: '{appID}-{podName}'}
  - {name: place, value: '{namespace}'}
  - {name: unique, value: '{uuid}'}
  - {name: package, envRef: PACKAGE}
  - {name: preferred, value: written, envRef: PACKAGE}
  - {name: unset, envRef: CARGO_PKG_NAME}
";
    let environment = BTreeMap::from([("PACKAGE".to_owned(), "components".to_owned().into())]);
    let namespace = Some("prod".into());
    let app = App { pod_name: Some("shop-7".into()), namespace, environment, ..app("shop") };
    let properties = properties(text, &app);
    assert_eq!(value(&properties, "consumer"), Some("shop-shop-7"));
    assert_eq!(value(&properties, "place"), Some("prod.shop"));
    assert_eq!(value(&properties, "unique").map(str::len), Some("8bb1bd3f-36f6-4a7b-9d0f-6a4e0f6a7f3e".len()));
    assert_eq!(value(&properties, "package"), Some("components"));
    assert_eq!(value(&properties, "preferred"), Some("written"));
    assert_eq!(value(&properties, "unset"), None);
}

#[test]
fn every_item_that_cannot_be_resolved_is_named() {
    let lines = faults(
        "
kind: Component
metadata: {name: cache}
spec:
  type: state.in-memory
  metadata:
  - {name: redisPassword, secretKeyRef: {name: redis, key: password}}
  - {name: token, envRef: DAPR_API_TOKEN}
  - {name: consumer, value: '{podName}'}
auth: {secretStore: vault}
",
    );
    let at = "c.yaml: document 1, line 2: component cache: ";
    assert_eq!(
        lines,
        [
            format!(
                "{at}`redisPassword` refers to the secret \"redis\": there is no secret store \"vault\"; known: none"
            ),
            format!("{at}`token` may not read the environment variable \"DAPR_API_TOKEN\""),
            format!("{at}`consumer` holds {{podName}}, and the name of the pod is not known"),
        ]
    );
}

#[test]
fn a_value_never_shows_in_what_is_printed() {
    let text = "
kind: Component
metadata: {name: cache}
spec:
  type: state.in-memory
  metadata:
  - {name: keyPrefix, value: 'hunter2||'}
  - {name: redisPassword, value: hunter2}
";
    let lines = faults(text);
    assert_eq!(lines, ["c.yaml: document 1, line 2: component cache: `keyPrefix` must be free of `||`"]);
    let folder = folder(&[("c.yaml", text)]);
    let manifests = format!("{:?}", manifest::read(&manifest::sources(&[folder.path()]), &mut Faults::default()));
    assert!(manifests.contains("redisPassword") && !manifests.contains("hunter2"), "{manifests}");
}

#[test]
fn a_secret_in_the_wrong_place_does_not_show() {
    for wrong in [
        "metadata:\n  - {name: redisPassword, secretKeyRef: hunter2}",
        "metadata:\n  - {name: redisPassword, secretKeyRef: 'hunter2, expected hunter2'}",
        "metadata:\n  - {name: redisPassword, secretKeyRef: 'hunter2 at line hunter2, expected hunter2 at line 1'}",
        "metadata:\n  - {name: redisPassword, secretKeyRef: 477292}",
        "metadata:\n  - hunter2",
        "metadata: hunter2",
    ] {
        let lines =
            faults(&format!("kind: Component\nmetadata: {{name: cache}}\nspec:\n  type: state.in-memory\n  {wrong}\n"));
        let text = lines.join("\n");
        assert!(!text.contains("hunter2") && !text.contains("477292"), "{text}");
        assert!(text.starts_with("c.yaml: document 1, line "), "{text}");
        assert!(text.ends_with("expected a mapping") || text.ends_with("expected a sequence"), "{text}");
    }
}

#[tokio::test]
async fn a_registered_type_gets_keys_with_the_prefix_that_the_component_asks_for() {
    let mut registry = Registry::builtin();
    registry.register_state_store("state.echo", "v2", OWN, |_| Ok(Arc::new(Echo)));
    let app = App { namespace: Some("prod".into()), ..app("shop") };
    for (strategy, key) in [
        ("", "shop||key"),
        ("appid", "shop||key"),
        ("Name", "echo||key"),
        ("namespace", "prod.shop||key"),
        ("none", "key"),
        ("Shared", "shared||key"),
    ] {
        let text = format!(
            "kind: Component\nmetadata: {{name: echo}}\nspec: {{type: state.echo, version: v2, metadata: [{{name: KeyPrefix, value: '{strategy}'}}]}}\n"
        );
        let components = registry.load(&[folder(&[("c.yaml", &text)]).path()], &app).unwrap();
        let request = GetRequest { key: "key".into(), ..GetRequest::default() };
        assert_eq!(components.state_stores["echo"].get(request).await.unwrap().data, key, "{strategy:?}");
    }
}

#[test]
fn a_fault_can_be_matched_on() {
    let folder = folder(&[("c.yaml", &CACHE.replace("in-memory", "odd"))]);
    let faults = Registry::builtin().load(&[folder.path()], &App::default()).err().unwrap();
    let fault = faults.iter().next().unwrap();
    assert!(matches!(&fault.problem, Problem::UnknownType { component_type, .. } if component_type == "state.odd"));
    assert_eq!((fault.place.document, fault.place.line), (Some(1), Some(2)));
}
