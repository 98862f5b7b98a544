//! What a container is to run, and how: the image's `/config.yaml` and the annotations of the OCI spec.

mod http;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context as _, bail, ensure};
use components::{App, AppId};
use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_yaml::Deserializer;

use super::rootfs::Rootfs;
use super::trigger::http::HttpOptions;

const CONFIG_FILE: &str = "/config.yaml";
const PREFIX: &str = "dapr.wasm/";
const DAPR_PREFIX: &str = "dapr.io/";
const DEFAULT_PORT: u16 = 8080;
/// A larger file is no configuration, and not read into memory to find that out.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The annotations of this runtime.
const ANNOTATIONS: [&str; 12] = [
    "dapr.wasm/app-id",
    "dapr.wasm/components",
    "dapr.wasm/engine",
    "dapr.wasm/idle-timeout",
    "dapr.wasm/instances",
    "dapr.wasm/max-body-size",
    "dapr.wasm/max-concurrency",
    "dapr.wasm/max-header-size",
    "dapr.wasm/max-queue",
    "dapr.wasm/port",
    "dapr.wasm/request-timeout",
    "dapr.wasm/trigger",
];

/// What a container runs.
#[derive(Debug)]
pub(super) enum Workload {
    Wasm(Box<WasmConfig>),
    /// An ordinary Linux program, such as a pod's pause container.
    Native,
}

#[derive(Clone, Debug)]
pub(super) struct WasmConfig {
    /// In the container's root.
    pub(super) module: PathBuf,
    /// The image's name, where it is known.
    pub(super) image: Option<String>,
    pub(super) trigger: Trigger,
    /// As the annotation names it.
    pub(super) engine: Option<String>,
    /// A file or folder in the container.
    pub(super) components: Option<PathBuf>,
    pub(super) app: App,
    /// The guest's arguments, its own name first.
    pub(super) args: Vec<String>,
}

/// What makes the guest run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// Once, from this export.
    Command { function: String },
    /// By each request to this port.
    Http { port: u16, options: HttpOptions },
}

/// `/config.yaml` of an image.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ImageConfig {
    wasm_path: Option<PathBuf>,
    trigger: Option<String>,
    port: Option<u16>,
    component_path: Option<PathBuf>,
    instances: Option<String>,
}

/// What some editors begin a file in UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What makes a `/config.yaml` this runtime's. One with neither is the guest's own, and nothing else of it is looked at.
const MARKS: [&str; 2] = ["wasmPath", "trigger"];

impl ImageConfig {
    fn read(rootfs: &Rootfs) -> anyhow::Result<Option<Self>> {
        let file = match rootfs.open(Path::new(CONFIG_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot read the image's /config.yaml"),
        };
        let text = read_text(file).context("cannot read the image's /config.yaml")?;
        let Some(text) = text else { return Ok(None) };
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text);
        let invalid = "the image's /config.yaml is not valid";
        // Whether it is this runtime's is known only once it was parsed.
        if is_ours(text).context(invalid)? { serde_yaml::from_slice(text).map(Some).context(invalid) } else { Ok(None) }
    }
}

/// `None`: there is more than a configuration has.
fn read_text(file: File) -> io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let length = file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text)?;
    Ok((length as u64 <= MAX_CONFIG_BYTES).then_some(text))
}

/// Whether a text has one of the [`MARKS`].
///
/// # Errors
/// It is not YAML.
fn is_ours(text: &[u8]) -> serde_yaml::Result<bool> {
    for document in Deserializer::from_slice(text) {
        IgnoredAny::deserialize(document)?;
    }
    // YAML that is no such mapping is the guest's own.
    let keys = |document| BTreeMap::<String, Option<IgnoredAny>>::deserialize(document).unwrap_or_default();
    let mut documents = Deserializer::from_slice(text).map(keys);
    Ok(documents.any(|keys| MARKS.iter().any(|&mark| matches!(keys.get(mark), Some(Some(_))))))
}

/// Finds out what the container of a spec is to run.
///
/// # Errors
/// The configuration contradicts itself or says what nobody knows; the message says what is allowed.
pub(super) fn workload(spec: &Spec, rootfs: &Rootfs) -> anyhow::Result<Workload> {
    let annotations = annotations(spec);
    if annotations.get("io.kubernetes.cri.container-type").is_some_and(|kind| kind == "sandbox") {
        return Ok(Workload::Native);
    }
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().clone()).unwrap_or_default();
    let working_directory = process.map_or(Path::new("/"), |process| process.cwd());
    let entry = args.first().map(|arg| EntryPoint::parse(arg).below(working_directory));
    let image = match ImageConfig::read(rootfs) {
        // A Linux program's own file may look like anything.
        Err(_) if entry.as_ref().is_some_and(|entry| entry.is_native(rootfs)) => return Ok(Workload::Native),
        image => image?,
    };
    if image.is_none() && !entry.as_ref().is_some_and(|entry| entry.is_wasm(rootfs)) {
        return Ok(Workload::Native);
    }
    let mut image = image.unwrap_or_default();
    let (path, function) = entry.map(|entry| (entry.path, entry.function)).unzip();
    let trigger = trigger(function.flatten(), &image, annotations)?;
    let module = image.wasm_path.take().or(path);
    let module = module.context("neither wasmPath in /config.yaml nor an entry point names a module")?;
    wasm_config(args, module, trigger, image.component_path, annotations).map(|config| Workload::Wasm(Box::new(config)))
}

/// Finds out what one more process of a container is to run: a Wasm file with the container's engine and components,
/// or an ordinary program.
///
/// # Errors
/// As those of [`workload`].
pub(super) fn exec_workload(spec: &Spec, process: &Process, rootfs: &Rootfs) -> anyhow::Result<Workload> {
    let args = process.args().clone().unwrap_or_default();
    let entry = args.first().map(|arg| EntryPoint::parse(arg).below(process.cwd()));
    let Some(entry) = entry else { return Ok(Workload::Native) };
    if !entry.is_wasm(rootfs) {
        return Ok(Workload::Native);
    }
    // Where the image's own is damaged, the container does not run.
    let image = ImageConfig::read(rootfs).ok().flatten().unwrap_or_default();
    wasm_config(args, entry.path, command(entry.function), image.component_path, annotations(spec))
        .map(|config| Workload::Wasm(Box::new(config)))
}

fn annotations(spec: &Spec) -> &HashMap<String, String> {
    static NONE: LazyLock<HashMap<String, String>> = LazyLock::new(HashMap::new);
    spec.annotations().as_ref().unwrap_or(&NONE)
}

fn annotation<'a>(annotations: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    annotations.get(&format!("{PREFIX}{name}")).map(String::as_str)
}

/// A value that the image's file may have, too, and where it is from.
fn annotation_or_file<'a>(
    annotations: &'a HashMap<String, String>,
    name: &str,
    in_file: Option<&'a str>,
) -> (String, Option<&'a str>) {
    match annotation(annotations, name) {
        Some(value) => (format!("annotation {PREFIX}{name}"), Some(value)),
        None => (format!("{name} in the image's {CONFIG_FILE}"), in_file),
    }
}

/// A value that Dapr's own annotation has where this runtime's is absent, and the annotation that it is from.
fn annotation_or_dapr_s<'a>(
    annotations: &'a HashMap<String, String>,
    name: &str,
    in_dapr: &str,
) -> Option<(String, &'a str)> {
    let keys = [format!("{PREFIX}{name}"), format!("{DAPR_PREFIX}{in_dapr}")];
    keys.into_iter().find_map(|key| annotations.get(&key).map(|value| (key, value.as_str())))
}

fn command(function: Option<String>) -> Trigger {
    Trigger::Command { function: function.unwrap_or_else(|| "_start".to_owned()) }
}

fn trigger(
    function: Option<String>,
    image: &ImageConfig,
    annotations: &HashMap<String, String>,
) -> anyhow::Result<Trigger> {
    let options = http::http_options(annotations, image.instances.as_deref())?;
    let (source, trigger) = annotation_or_file(annotations, "trigger", image.trigger.as_deref());
    let port = port(annotations, image.port, trigger == Some("http"))?;
    match trigger.unwrap_or("command") {
        "command" | "state" => Ok(command(function)),
        "http" => Ok(Trigger::Http { port, options }),
        other => bail!("{source}: unknown trigger {other:?}; this runtime knows command, http, state"),
    }
}

/// The port of an HTTP guest. For others, what Dapr's annotation says is no concern of this runtime.
fn port(annotations: &HashMap<String, String>, in_file: Option<u16>, is_http: bool) -> anyhow::Result<u16> {
    let annotated = annotation_or_dapr_s(annotations, "port", "app-port");
    let Some((key, port)) = annotated.filter(|(key, _)| is_http || key.starts_with(PREFIX)) else {
        let port = in_file.unwrap_or(DEFAULT_PORT);
        ensure!(
            port != 0,
            "port 0 in the image's {CONFIG_FILE} is not a port that anyone could connect to (1 to 65535)"
        );
        return Ok(port);
    };
    let number = port.parse().map(NonZeroU16::get);
    number.with_context(|| format!("annotation {key} is {port:?}, not a port (1 to 65535)"))
}

fn wasm_config(
    mut args: Vec<String>,
    module: PathBuf,
    trigger: Trigger,
    image_components: Option<PathBuf>,
    annotations: &HashMap<String, String>,
) -> anyhow::Result<WasmConfig> {
    for key in annotations.keys().filter(|key| key.starts_with(PREFIX)) {
        ensure!(
            ANNOTATIONS.contains(&key.as_str()),
            "unknown annotation {key:?}; this runtime knows {}",
            ANNOTATIONS.join(", ")
        );
    }
    let components = annotation(annotations, "components").map(PathBuf::from);
    ensure!(components.as_deref() != Some(Path::new("")), "annotation {PREFIX}components is empty, not a path");
    match args.first_mut() {
        Some(name) => *name = EntryPoint::parse(name).path.to_string_lossy().into_owned(),
        None => args.push(module.to_string_lossy().into_owned()),
    }
    Ok(WasmConfig {
        module,
        image: annotations.get("io.kubernetes.cri.image-name").cloned(),
        trigger,
        engine: annotation(annotations, "engine").map(str::to_owned),
        components: components.or(image_components),
        app: app(annotations)?,
        args,
    })
}

/// Who the guest is to Dapr: Kubernetes tells its pod's name and namespace through the CRI's own annotations.
fn app(annotations: &HashMap<String, String>) -> anyhow::Result<App> {
    let text = |key: &str| annotations.get(key).cloned();
    let id = annotation_or_dapr_s(annotations, "app-id", "app-id");
    let id = id.map(|(key, id)| AppId::new(id).with_context(|| format!("annotation {key}")));
    Ok(App {
        id: id.transpose()?,
        namespace: text("io.kubernetes.cri.sandbox-namespace"),
        configuration: text("dapr.io/config"),
        pod_name: text("io.kubernetes.cri.sandbox-name"),
        ..App::default()
    })
}

/// The first argument of an image without a `/config.yaml`: `/app.wasm`, also `/app.wasm#function`.
#[derive(Clone, Debug)]
struct EntryPoint {
    path: PathBuf,
    function: Option<String>,
}

impl EntryPoint {
    fn parse(argument: &str) -> Self {
        match argument.split_once('#') {
            Some((path, function)) if path.ends_with(".wasm") && !function.is_empty() => {
                Self { path: path.into(), function: Some(function.to_owned()) }
            }
            _ => Self { path: argument.into(), function: None },
        }
    }

    /// A relative path starts at the working directory, as a Linux program's.
    fn below(self, working_directory: &Path) -> Self {
        Self { path: working_directory.join(self.path), ..self }
    }

    /// By its name, so that a module that is missing or damaged is reported as such; or by its first bytes.
    fn is_wasm(&self, rootfs: &Rootfs) -> bool {
        self.path.extension().is_some_and(|extension| extension == "wasm") || self.starts_with(rootfs, b"\0asm")
    }

    fn is_native(&self, rootfs: &Rootfs) -> bool {
        self.starts_with(rootfs, b"\x7fELF") || self.starts_with(rootfs, b"#!")
    }

    fn starts_with(&self, rootfs: &Rootfs, magic: &[u8]) -> bool {
        let mut start = vec![0; magic.len()];
        let read = rootfs.open(&self.path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == magic
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn image_config(text: &str) -> anyhow::Result<Option<ImageConfig>> {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("config.yaml"), text).unwrap();
        ImageConfig::read(&Rootfs::open_root(root.path(), &[]).unwrap())
    }

    #[test]
    fn yaml_without_our_marks_is_the_guest_s_own() {
        let own = [
            "",
            "# nothing\n",
            "text",
            "- wasmPath: /app.wasm\n- trigger: http\n",
            "a: 1\n---\nb: 2\n",
            "wasmPath:\ntrigger: ~\n",
            "[a, b]: c\n1: 2\n",
            "!tag {other: 1}\n---\n...\n",
        ];
        for text in own {
            assert!(image_config(text).unwrap().is_none(), "{text:?}");
        }
        assert!(image_config("wasmPath: /app.wasm\n").unwrap().is_some());
        assert!(image_config("---\ntrigger: http\n...\n").unwrap().is_some());
        assert!(image_config("\u{feff}trigger: http\r\n").unwrap().is_some());
    }

    #[test]
    fn what_is_no_yaml_or_has_our_marks_and_more_is_an_error() {
        for text in [
            "a: [",
            "a: b: c\n",
            "a: 1\n---\n]\n",
            "wasmPath: /app.wasm\nother: 1\n",
            "trigger: a\ntrigger: b\n",
            "wasmPath: /app.wasm\n---\n",
            "a: 1\n---\nwasmPath: /app.wasm\n",
        ] {
            let error = image_config(text).unwrap_err().to_string();
            assert_eq!(error, "the image's /config.yaml is not valid", "{text:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_for_a_configuration_is_the_guest_s_own() {
        let start = "wasmPath: /app.wasm\n";
        let text = |bytes: u64| format!("{start}{}", "#".repeat(bytes as usize - start.len()));
        assert!(image_config(&text(MAX_CONFIG_BYTES)).unwrap().is_some());
        assert!(image_config(&text(MAX_CONFIG_BYTES + 1)).unwrap().is_none());
    }

    fn trigger_of(annotations: &[(&str, &str)], port: Option<u16>) -> anyhow::Result<Trigger> {
        let annotations = annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        trigger(None, &ImageConfig { port, ..ImageConfig::default() }, &annotations)
    }

    const HTTP: (&str, &str) = ("dapr.wasm/trigger", "http");

    #[test]
    fn the_port_is_this_runtime_s_annotation_s_or_dapr_s_or_the_image_s() {
        let cases = [
            (&[HTTP][..], None, DEFAULT_PORT),
            (&[HTTP], Some(81), 81),
            (&[HTTP, ("dapr.io/app-port", "82")], Some(81), 82),
            (&[HTTP, ("dapr.io/app-port", "82"), ("dapr.wasm/port", "83")], Some(81), 83),
            (&[HTTP, ("dapr.io/app-port", "none"), ("dapr.wasm/port", "83")], None, 83),
        ];
        for (annotations, in_file, expected) in cases {
            let trigger = trigger_of(annotations, in_file).unwrap();
            assert!(matches!(trigger, Trigger::Http { port, .. } if port == expected), "{annotations:?}: {trigger:?}");
        }
    }

    #[test]
    fn an_annotation_that_is_no_port_is_named_where_it_counts() {
        for value in ["0", "65536", "http", ""] {
            for key in ["dapr.wasm/port", "dapr.io/app-port"] {
                let error = trigger_of(&[HTTP, (key, value)], Some(80)).unwrap_err().to_string();
                assert_eq!(error, format!("annotation {key} is {value:?}, not a port (1 to 65535)"));
            }
            assert_eq!(trigger_of(&[("dapr.io/app-port", value)], None).unwrap(), command(None));
            assert!(trigger_of(&[("dapr.wasm/port", value)], None).is_err());
        }
        assert!(trigger_of(&[HTTP], Some(0)).unwrap_err().to_string().contains("/config.yaml"));
    }
}
