//! What a container is to run, and how: the image's `/config.yaml` and the annotations of the OCI spec.

mod http;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context as _, bail, ensure};
use components::{App, AppId};
use oci_spec::runtime::{Process, Spec};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rootfs::Rootfs;
use super::trigger::http::HttpOptions;

const CONFIG_FILE: &str = "/config.yaml";
const PREFIX: &str = "dapr.wasm/";
const DEFAULT_PORT: u16 = 8080;
/// A larger file is not read into memory to find out that it is no configuration.
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

/// What makes a `/config.yaml` this runtime's. One with neither is the guest's own, and nothing else of it is looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a mapping")]
struct Marks {
    wasm_path: Option<IgnoredAny>,
    trigger: Option<IgnoredAny>,
}

impl Marks {
    fn are_ours(&self) -> bool {
        self.wasm_path.is_some() || self.trigger.is_some()
    }
}

impl ImageConfig {
    fn read(rootfs: &Rootfs) -> anyhow::Result<Option<Self>> {
        let file = match rootfs.open(Path::new(CONFIG_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("cannot read the image's /config.yaml"),
        };
        let text = read_text(file).context("cannot read the image's /config.yaml")?;
        let invalid = "the image's /config.yaml is not valid";
        // Whether it is this runtime's is known only once it was parsed.
        let marks: Marks = serde_yaml::from_str(&text).context(invalid)?;
        if marks.are_ours() { serde_yaml::from_str(&text).map(Some).context(invalid) } else { Ok(None) }
    }
}

fn read_text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_CONFIG_BYTES).read_to_string(&mut text)?;
    Ok(text)
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

fn command(function: Option<String>) -> Trigger {
    Trigger::Command { function: function.unwrap_or_else(|| "_start".to_owned()) }
}

fn trigger(
    function: Option<String>,
    image: &ImageConfig,
    annotations: &HashMap<String, String>,
) -> anyhow::Result<Trigger> {
    let port = match annotation(annotations, "port") {
        Some(port) => {
            port.parse().with_context(|| format!("annotation dapr.wasm/port is {port:?}, not a port (1 to 65535)"))?
        }
        None => image.port.unwrap_or(DEFAULT_PORT),
    };
    ensure!(port != 0, "port 0 is not a port that anyone could connect to (1 to 65535)");
    let options = http::http_options(annotations, image.instances.as_deref())?;
    let (source, trigger) = annotation_or_file(annotations, "trigger", image.trigger.as_deref());
    match trigger.unwrap_or("command") {
        "command" | "state" => Ok(command(function)),
        "http" => Ok(Trigger::Http { port, options }),
        other => bail!("{source}: unknown trigger {other:?}; this runtime knows command, http, state"),
    }
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
    match args.first_mut() {
        Some(name) => *name = EntryPoint::parse(name).path.to_string_lossy().into_owned(),
        None => args.push(module.to_string_lossy().into_owned()),
    }
    Ok(WasmConfig {
        module,
        image: annotations.get("io.kubernetes.cri.image-name").cloned(),
        trigger,
        engine: annotation(annotations, "engine").map(str::to_owned),
        components: annotation(annotations, "components").map(PathBuf::from).or(image_components),
        app: app(annotations)?,
        args,
    })
}

/// Who the guest is to Dapr: Kubernetes tells its pod's name and namespace through the CRI's own annotations.
fn app(annotations: &HashMap<String, String>) -> anyhow::Result<App> {
    let text = |key: &str| annotations.get(key).cloned();
    let id = ["dapr.wasm/app-id", "dapr.io/app-id"].iter().find_map(|key| Some((key, text(key)?)));
    let id = id.map(|(key, id)| AppId::new(id).with_context(|| format!("annotation {key}")));
    Ok(App {
        id: id.transpose()?,
        namespace: text("io.kubernetes.cri.sandbox-namespace"),
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
            Some((path, function)) if path.ends_with(".wasm") => {
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
