//! Which component types there are, and the components of one app.

mod secret_stores;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use host_abi::secrets::SecretStore;
use host_abi::state::StateStore;

use crate::app::App;
use crate::configuration::Rules;
use crate::field::Description;
use crate::manifest::{self, Faults, Manifest, Problem, Source};
use crate::properties::{InvalidProperty, Properties};
use crate::resiliency::Policies;
use crate::secrets::{SecretSource, SecretSources, kubernetes, local_env, local_file};
#[cfg(feature = "postgresql")]
use crate::state::postgresql;
#[cfg(feature = "redis")]
use crate::state::redis;
#[cfg(feature = "sqlite")]
use crate::state::sqlite;
use crate::state::{EVERY_STORE, NamedStore, PatientStore, in_memory};

/// Makes a store from a component's metadata. It does no I/O: a store connects when it is first called.
pub type StateStoreConstructor = dyn Fn(&Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> + Send + Sync;

/// Makes a secret store from a component's metadata, for an app. It may read files.
pub type SecretStoreConstructor =
    dyn Fn(&Properties, &App) -> Result<Arc<dyn SecretSource>, InvalidProperty> + Send + Sync;

/// What else Dapr calls a type.
const ALIASES: [(&str, &str); 2] = [("state.postgres", "state.postgresql"), ("state.sqlite3", "state.sqlite")];

/// A component type, such as `state.redis`, and its version. Case does not matter, and Dapr's names for the
/// first version, none at all, `v0` and `v1`, are one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeVersion {
    pub(crate) component_type: String,
    version: String,
}

impl TypeVersion {
    pub(crate) fn new(component_type: &str, version: &str) -> Self {
        let version = match version.to_ascii_lowercase().as_str() {
            "" | "v0" => "v1".to_owned(),
            version => version.to_owned(),
        };
        let alias = ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(component_type));
        let component_type = alias.map_or(component_type, |(_, name)| name).to_ascii_lowercase();
        Self { component_type, version }
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
    state_stores: BTreeMap<TypeVersion, ComponentType<StateStoreConstructor>>,
    secret_stores: BTreeMap<TypeVersion, ComponentType<SecretStoreConstructor>>,
}

struct ComponentType<C: ?Sized> {
    description: Description,
    constructor: Box<C>,
}

/// The components that one app may use.
#[derive(Default)]
pub struct Components {
    /// By component name.
    pub state_stores: BTreeMap<String, Arc<dyn StateStore>>,
    /// By component name; in Kubernetes also `kubernetes`.
    pub secret_stores: BTreeMap<String, Arc<dyn SecretStore>>,
}

impl Registry {
    /// The types that this build holds: `state.in-memory`, those of the features `postgresql`, `redis` and `sqlite`,
    /// and all [secret stores](crate::secrets).
    pub fn builtin() -> Self {
        let mut registry = Self::default();
        registry.register_state_store("state.in-memory", "v1", in_memory::DESCRIPTION, in_memory::construct);
        #[cfg(feature = "postgresql")]
        registry.register_state_store("state.postgresql", "v2", postgresql::DESCRIPTION, postgresql::construct);
        #[cfg(feature = "redis")]
        registry.register_state_store("state.redis", "v1", redis::DESCRIPTION, redis::construct);
        #[cfg(feature = "sqlite")]
        registry.register_state_store("state.sqlite", "v1", sqlite::DESCRIPTION, sqlite::construct);
        registry.register_secret_store("secretstores.kubernetes", "v1", kubernetes::DESCRIPTION, kubernetes::construct);
        registry.register_secret_store("secretstores.local.env", "v1", local_env::DESCRIPTION, local_env::construct);
        registry.register_secret_store("secretstores.local.file", "v1", local_file::DESCRIPTION, local_file::construct);
        registry
    }

    /// Adds a type, or replaces the one of this name and version.
    ///
    /// What every store has in common is not the constructor's concern: the store gets keys that are checked
    /// and prefixed, and no etag where the guest's was empty (see [`NamedStore`]); its policies and `initTimeout` are
    /// kept around it.
    pub fn register_state_store<C>(
        &mut self,
        component_type: &str,
        version: &str,
        description: Description,
        constructor: C,
    ) where
        C: Fn(&Properties) -> Result<Arc<dyn StateStore>, InvalidProperty> + Send + Sync + 'static,
    {
        let constructor: Box<StateStoreConstructor> = Box::new(constructor);
        let component = ComponentType { description, constructor };
        self.state_stores.insert(TypeVersion::new(component_type, version), component);
    }

    /// Adds a type, or replaces the one of this name and version. Its name begins with `secretstores.`.
    pub fn register_secret_store<C>(
        &mut self,
        component_type: &str,
        version: &str,
        description: Description,
        constructor: C,
    ) where
        C: Fn(&Properties, &App) -> Result<Arc<dyn SecretSource>, InvalidProperty> + Send + Sync + 'static,
    {
        let constructor: Box<SecretStoreConstructor> = Box::new(constructor);
        let component = ComponentType { description, constructor };
        self.secret_stores.insert(TypeVersion::new(component_type, version), component);
    }

    /// Every type, such as `state.redis v1`, secret stores first.
    pub fn types(&self) -> impl Iterator<Item = (String, Description)> {
        let secret_stores =
            self.secret_stores.iter().map(|(name, component)| (name.to_string(), component.description));
        let state_stores = self.state_stores.iter().map(|(name, component)| (name.to_string(), component.description));
        secret_stores.chain(state_stores)
    }

    /// Reads the manifests of `paths`, each a file or a folder, and makes the components that `app` may use.
    ///
    /// A component of another namespace, or whose scopes leave the app out, is not there for it. Left out with a warning
    /// are those of building blocks that this runtime does not have, those whose type a Configuration denies, and those
    /// that cannot be made and say `ignoreErrors`. Secret stores are made first: the others refer to them.
    ///
    /// # Errors
    /// All that is wrong with any of the manifests, together.
    pub fn load<P: AsRef<Path>>(&self, paths: &[P], app: &App) -> Result<Components, Faults> {
        self.load_sources(&[], &manifest::sources(paths), app)
    }

    /// The same with manifests that were read before, or elsewhere: those of the node's operator, and the container's own.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_sources(&self, of_node: &[Source], own: &[Source], app: &App) -> Result<Components, Faults> {
        let mut faults = Faults::default();
        let [of_node, own] = [of_node, own].map(|sources| manifest::read(sources, &mut faults));
        let resiliency = of_node.resiliency.into_iter().chain(own.resiliency).collect();
        let policies = Policies::new(resiliency, app, &mut faults);
        let rules = Rules::new(of_node.configurations, own.configurations, app, &mut faults);
        let documents = of_node.components.into_iter().chain(own.components);
        let for_app = documents.filter(|manifest| manifest.is_for(app) && manifest.has_building_block()).collect();
        let mut manifests = manifest::refuse_duplicates(for_app, &mut faults);
        let built_in = self.built_in_secret_store(&manifests, app, &rules);
        manifests.retain(|manifest| rules.admit(manifest));
        let (secret_stores, mut others): (Vec<_>, Vec<_>) = manifests.into_iter().partition(Manifest::is_secret_store);
        let secrets = self.load_secret_stores(built_in, secret_stores, app, &mut faults);
        if !rules.allow("state") {
            others.clear();
        }
        let mut components = Components::default();
        for manifest in others {
            match self.state_store(&manifest, app, &secrets, &policies) {
                Ok(store) => {
                    components.state_stores.insert(manifest.name, Arc::new(store));
                }
                Err(problems) => manifest.report(problems, &mut faults),
            }
        }
        if rules.allow("secrets") {
            components.secret_stores = secrets.for_guests(rules.secret_scopes);
        }
        policies.warn_of_targets_beside(|name| {
            components.state_stores.contains_key(name) || components.secret_stores.contains_key(name)
        });
        faults.or(components)
    }

    fn state_store(
        &self,
        manifest: &Manifest,
        app: &App,
        secrets: &SecretSources,
        policies: &Policies,
    ) -> Result<NamedStore, Vec<Problem>> {
        let ComponentType { description, constructor } = self.find(&self.state_stores, manifest)?;
        let properties = manifest.resolve(&[*description, EVERY_STORE], app, secrets)?;
        let unusable = |source| vec![manifest.unusable(&properties, source)];
        let store = constructor(&properties).map_err(unusable)?;
        let store = PatientStore::new(store, policies.of_state_store(&manifest.name), manifest.init_timeout);
        NamedStore::new(&manifest.name, Arc::new(store), &properties, app).map_err(unusable)
    }

    fn find<'a, C>(&self, types: &'a BTreeMap<TypeVersion, C>, manifest: &Manifest) -> Result<&'a C, Vec<Problem>> {
        let wanted = TypeVersion::new(&manifest.component_type, &manifest.version);
        types.get(&wanted).ok_or_else(|| {
            vec![Problem::UnknownType {
                component: manifest.name.clone(),
                component_type: manifest.component_type.clone(),
                version: wanted.version.clone(),
                known: self.known(),
            }]
        })
    }

    fn known(&self) -> String {
        let known: Vec<String> = self.types().map(|(name, _)| name).collect();
        known.join(", ")
    }
}
