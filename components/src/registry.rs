//! Which component types there are, and the components of one app.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use host_abi::state::StateStore;

use crate::app::App;
use crate::manifest::{self, Faults, Manifest, Problem};
use crate::properties::{InvalidProperty, Properties};
use crate::state::{self, NamedStore};

/// Makes a store from a component's metadata. It does no I/O: a store connects when it is first called.
pub type StateStoreConstructor = dyn Fn(&Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> + Send + Sync;

/// A component type, such as `state.redis`, and its version. Case does not matter, and Dapr's names for the
/// first version, none at all, `v0` and `v1`, are one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct TypeVersion {
    component_type: String,
    version: String,
}

impl TypeVersion {
    fn new(component_type: &str, version: &str) -> Self {
        let version = match version.to_ascii_lowercase().as_str() {
            "" | "v0" => "v1".to_owned(),
            version => version.to_owned(),
        };
        Self { component_type: component_type.to_ascii_lowercase(), version }
    }
}

impl fmt::Display for TypeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.component_type, self.version)
    }
}

/// The component types that manifests may name.
#[derive(Default)]
pub struct Registry {
    state_stores: BTreeMap<TypeVersion, Box<StateStoreConstructor>>,
}

/// The components that one app may use.
#[derive(Default)]
pub struct Components {
    /// By component name.
    pub state_stores: BTreeMap<String, Arc<dyn StateStore>>,
}

impl Registry {
    /// The types that this build holds: `state.in-memory`, and those of the features `postgresql`, `redis` and
    /// `sqlite`.
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        registry.register_state_store("state.in-memory", "v1", state::in_memory::construct);
        #[cfg(feature = "postgresql")]
        registry.register_state_store("state.postgresql", "v2", state::postgresql::construct);
        #[cfg(feature = "redis")]
        registry.register_state_store("state.redis", "v1", state::redis::construct);
        #[cfg(feature = "sqlite")]
        registry.register_state_store("state.sqlite", "v1", state::sqlite::construct);
        registry
    }

    /// Adds a type, or replaces the one of this name and version.
    ///
    /// What every store has in common is not the constructor's concern: the store gets keys that are checked
    /// and prefixed, no etag where the guest's was empty, and the component's default `ttlInSeconds` where the
    /// request has none (see [`NamedStore`]).
    pub fn register_state_store<C>(&mut self, component_type: &str, version: &str, constructor: C)
    where
        C: Fn(&Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> + Send + Sync + 'static,
    {
        self.state_stores.insert(TypeVersion::new(component_type, version), Box::new(constructor));
    }

    /// Reads the manifests of `paths`, each a file or a folder, and makes the components that `app` may use.
    ///
    /// A component whose scopes leave the app out is not there for it. One that cannot be made and says
    /// `ignoreErrors` is left out with a warning.
    ///
    /// # Errors
    /// All that is wrong with any of the manifests, together.
    pub fn load<P: AsRef<Path>>(&self, paths: &[P], app: &App) -> Result<Components, Faults> {
        let mut faults = Faults::default();
        let manifests = manifest::read(paths, &mut faults);
        let mut components = Components::default();
        for manifest in manifests.into_iter().filter(|manifest| manifest.admits(app)) {
            match self.state_store(&manifest, app) {
                Ok(store) => {
                    components.state_stores.insert(manifest.name, Arc::new(store));
                }
                Err(problems) if manifest.ignore_errors => {
                    for problem in problems {
                        tracing::warn!(place = %manifest.place, "ignored: {problem}");
                    }
                }
                Err(problems) => {
                    problems.into_iter().for_each(|problem| faults.push(manifest.place.clone(), problem));
                }
            }
        }
        faults.or(components)
    }

    fn state_store(&self, manifest: &Manifest, app: &App) -> Result<NamedStore, Vec<Problem>> {
        let wanted = TypeVersion::new(&manifest.component_type, &manifest.version);
        let constructor = self.state_stores.get(&wanted).ok_or_else(|| {
            vec![Problem::UnknownType {
                component: manifest.name.clone(),
                component_type: manifest.component_type.clone(),
                version: wanted.version.clone(),
                known: self.known(),
            }]
        })?;
        let properties = manifest.resolve(app)?;
        let unusable = |source| vec![Problem::Property { component: manifest.name.clone(), source }];
        let store = constructor(&properties).map_err(unusable)?;
        NamedStore::new(&manifest.name, store, &properties, app).map_err(unusable)
    }

    fn known(&self) -> String {
        let known: Vec<String> = self.state_stores.keys().map(TypeVersion::to_string).collect();
        known.join(", ")
    }
}
