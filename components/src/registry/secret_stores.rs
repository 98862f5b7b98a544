//! Secret stores, which may need one another: each is made as soon as the one that it refers to is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{ComponentType, Registry, TypeVersion};
use crate::app::App;
use crate::configuration::Rules;
use crate::manifest::{Faults, Manifest, Problem};
use crate::properties::Properties;
use crate::secrets::{KUBERNETES_STORE, SecretSource, SecretSources};

impl Registry {
    pub(super) fn load_secret_stores(
        &self,
        built_in: Option<Arc<dyn SecretSource>>,
        mut waiting: Vec<Manifest>,
        app: &App,
        faults: &mut Faults,
    ) -> SecretSources {
        let mut sources = SecretSources::default();
        if let Some(source) = built_in {
            sources.insert(KUBERNETES_STORE.to_owned(), source);
        }
        while !waiting.is_empty() {
            let names: BTreeSet<String> = waiting.iter().map(|manifest| manifest.name.clone()).collect();
            let is_blocked = |manifest: &Manifest| needed(manifest, app, &names).is_some();
            let (blocked, ready): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_blocked);
            if ready.is_empty() {
                blocked.iter().for_each(|manifest| report_cycle(manifest, app, &names, faults));
                break;
            }
            for manifest in ready {
                match self.secret_source(&manifest, app, &sources) {
                    Ok(source) => sources.insert(manifest.name, source),
                    Err(problems) => manifest.report(problems, faults),
                }
            }
            waiting = blocked;
        }
        sources
    }

    fn secret_source(
        &self,
        manifest: &Manifest,
        app: &App,
        sources: &SecretSources,
    ) -> Result<Arc<dyn SecretSource>, Vec<Problem>> {
        let ComponentType { description, constructor } = self.find(&self.secret_stores, manifest)?;
        let properties = manifest.resolve(&[*description], app, sources)?;
        constructor(&properties, app).map_err(|source| vec![manifest.unusable(&properties, source)])
    }

    /// What is there in Kubernetes without a component, unless one has the name, or the type is denied.
    pub(super) fn built_in_secret_store(
        &self,
        manifests: &[Manifest],
        app: &App,
        rules: &Rules,
    ) -> Option<Arc<dyn SecretSource>> {
        let kubernetes = TypeVersion::new("secretstores.kubernetes", "");
        let is_taken = manifests.iter().any(|manifest| manifest.is_secret_store() && manifest.name == KUBERNETES_STORE);
        if !app.is_in_kubernetes() || is_taken || rules.deny(&kubernetes) {
            return None;
        }
        (self.secret_stores.get(&kubernetes)?.constructor)(&Properties::default(), app).ok()
    }
}

/// The store among `names` that has to be there before.
fn needed<'a>(manifest: &'a Manifest, app: &App, names: &BTreeSet<String>) -> Option<&'a str> {
    manifest.needs_secret_store(app).filter(|store| names.contains(*store))
}

fn report_cycle(manifest: &Manifest, app: &App, names: &BTreeSet<String>, faults: &mut Faults) {
    let cycle = |store: &str| Problem::SecretStoreCycle { component: manifest.name.clone(), store: store.to_owned() };
    manifest.report(needed(manifest, app, names).map(cycle).into_iter().collect(), faults);
}
