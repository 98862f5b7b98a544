//! Dapr's YAML (`dapr.io/v1alpha1`): files and folders of Components, Configurations and Resiliencies, read as a whole.
//!
//! A folder is read as Dapr reads its resources folder: `.yaml` and `.yml`, not recursive, several documents a
//! file, documents of other kinds skipped, unknown fields tolerated. Where Dapr warns about a document that it
//! cannot read and goes on, this reports a [`Fault`]; it reports all of them, not the first.

mod any_case;
mod document;
mod fault;
mod resolve;

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use document::Scalar;
use document::{Item, Resource};
pub use fault::{Fault, Faults, Place, Problem};

use crate::app::App;
use crate::configuration::Configuration;
use crate::properties::{InvalidProperty, Properties};
use crate::resiliency;
use crate::secrets::{Budget, NONBLOCK};

/// The extensions of the files that are read, in any case.
const YAML: [&str; 2] = ["yaml", "yml"];

/// Dapr's building blocks that this runtime does not have: the first words of the types of their components.
const ABSENT_BUILDING_BLOCKS: [&str; 10] = [
    "bindings",
    "configuration",
    "conversation",
    "crypto",
    "lock",
    "middleware",
    "nameresolution",
    "pubsub",
    "workflow",
    "workflowbackend",
];

/// All documents that count, in the order of the files.
#[derive(Debug, Default)]
pub struct Documents {
    pub components: Vec<Manifest>,
    pub(crate) configurations: Vec<(Place, Configuration)>,
    pub(crate) resiliency: Vec<(Place, resiliency::Document)>,
}

/// One Component document, its values not yet resolved.
#[derive(Debug)]
pub struct Manifest {
    pub place: Place,
    pub name: String,
    /// Empty where none is written, which is every one.
    pub namespace: String,
    /// Such as `state.redis`.
    pub component_type: String,
    /// As written; empty when absent.
    pub version: String,
    /// Whether the app starts without this component when it cannot be initialised.
    pub ignore_errors: bool,
    /// Dapr's default, 5 s, stands for one that is absent, malformed or not above zero.
    pub init_timeout: Duration,
    /// The app ids that may use the component; every app may when this is empty.
    pub scopes: Vec<String>,
    /// The secret store that `secretKeyRef` refers to, if the component names one.
    pub secret_store: Option<String>,
    items: Vec<Item>,
}

impl Manifest {
    /// Whether the scopes let `app` use the component, and it is of the app's namespace, where both have one. An app
    /// without an id is in no scope. The log says which components an app goes without.
    pub(crate) fn is_for(&self, app: &App) -> bool {
        let Self { place, name, namespace, scopes, .. } = self;
        let app_namespace = app.namespace();
        let is_of_namespace = namespace.is_empty() || app_namespace.is_empty() || namespace == app_namespace;
        let admits = is_of_namespace && app.is_in_scope(scopes);
        if !admits {
            let id = app.id_or_empty();
            tracing::info!(%place, name, ?scopes, namespace, app.id = id, app.namespace = app_namespace, "not for this app");
        }
        admits
    }

    /// Whether this runtime has what guests would call it through. The log says which components are left out.
    pub(crate) fn has_building_block(&self) -> bool {
        let Self { place, name, component_type, .. } = self;
        let category = component_type.split('.').next().unwrap_or_default();
        let is_absent = ABSENT_BUILDING_BLOCKS.iter().any(|absent| absent.eq_ignore_ascii_case(category));
        if is_absent {
            tracing::warn!(%place, name, component_type, "left out: this runtime has no such building block");
        }
        !is_absent
    }

    pub(crate) fn is_secret_store(&self) -> bool {
        self.component_type.to_ascii_lowercase().starts_with("secretstores.")
    }

    pub(crate) fn unusable(&self, properties: &Properties, source: InvalidProperty) -> Problem {
        Problem::Property { component: self.name.clone(), source: properties.hidden_in(source) }
    }

    /// The component cannot be made: the app goes without it, or not at all.
    pub(crate) fn report(&self, problems: Vec<Problem>, faults: &mut Faults) {
        for problem in problems {
            if self.ignore_errors {
                tracing::warn!(place = %self.place, "ignored: {problem}");
            } else {
                faults.push(self.place.clone(), problem);
            }
        }
    }
}

/// The text of a file of documents, or why there is none.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    text: io::Result<String>,
}

/// Reads the files of `paths`, each a file or a folder.
pub fn sources<P: AsRef<Path>>(paths: &[P]) -> Vec<Source> {
    let sources = paths.iter().flat_map(|path| match files(path.as_ref()) {
        Ok(files) => files.into_iter().map(|path| Source { text: text(&path), path }).collect(),
        Err(error) => vec![Source { path: path.as_ref().to_owned(), text: Err(error) }],
    });
    sources.collect()
}

/// All documents of the sources.
pub fn read<'a>(sources: impl IntoIterator<Item = &'a Source>, faults: &mut Faults) -> Documents {
    let mut documents = Documents::default();
    for Source { path, text } in sources {
        match text {
            Ok(text) => read_text(path, text, &mut documents, faults),
            Err(error) => faults.push(Place::path(path), io::Error::new(error.kind(), error.to_string())),
        }
    }
    documents
}

/// `path` itself, or the YAML files directly in it, sorted by name.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let is_yaml =
            file.extension().is_some_and(|extension| YAML.iter().any(|yaml| extension.eq_ignore_ascii_case(yaml)));
        if is_yaml && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// The file may be an image's: it must be a regular one, and not larger than secrets may be together.
fn text(file: &Path) -> io::Result<String> {
    let mut file = fs::File::options().read(true).custom_flags(NONBLOCK).open(file)?;
    let mut text = String::from_utf8(Budget::new().read(&mut file)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "not UTF-8"))?;
    // What some editors begin a file with.
    if text.starts_with('\u{feff}') {
        text.remove(0);
    }
    Ok(text)
}

fn read_text(file: &Path, text: &str, documents: &mut Documents, faults: &mut Faults) {
    for document in document::split(text) {
        let place = Place::document(file, document.number, document.line);
        match document.parse() {
            Ok(Resource::Component(component)) => match component.at(place) {
                nameless if nameless.name.is_empty() => faults.push(nameless.place, Problem::Nameless),
                manifest => documents.components.push(manifest),
            },
            Ok(Resource::Configuration(configuration)) => documents.configurations.push((place, configuration)),
            Ok(Resource::Resiliency(resiliency)) => documents.resiliency.push((place, resiliency)),
            Ok(Resource::List) => {
                tracing::warn!(%place, "a list is not read: Dapr's resources are documents of their own");
            }
            Ok(Resource::WithoutEffect(kind)) => {
                tracing::warn!(%place, "a {kind} has no effect: this runtime has no such building block");
            }
            Ok(Resource::Other) => tracing::debug!(%place, "of another kind: skipped"),
            Err(error) => faults.push(Place { line: error.line.or(place.line), ..place }, Problem::Yaml(error.message)),
        }
    }
}

/// Reports each further component of a name, and keeps the first.
pub(crate) fn refuse_duplicates(mut manifests: Vec<Manifest>, faults: &mut Faults) -> Vec<Manifest> {
    let mut first_places: HashMap<String, Place> = HashMap::new();
    manifests.retain(|manifest| match first_places.get(&manifest.name) {
        None => {
            first_places.insert(manifest.name.clone(), manifest.place.clone());
            true
        }
        Some(first) => {
            let problem = Problem::Duplicate { component: manifest.name.clone(), first: first.clone() };
            faults.push(manifest.place.clone(), problem);
            false
        }
    });
    manifests
}
