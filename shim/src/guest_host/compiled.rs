//! A module's artifact: from the node's cache, or from a compiler.

use std::path::Path;

use anyhow::Context as _;
use engines::artifact_cache::{ArtifactCache, ArtifactKey, Description, Entry};
use engines::engine::Engine;
use engines::module_info::ModuleInfo;

use super::compile;
use super::module::ModuleBytes;
use super::rootfs::Rootfs;
use crate::operator_config::{ArtifactCacheConfig, OperatorConfig};
use crate::printable::printable;

/// A module where a container or an image has it.
pub(super) struct FoundModule<'a> {
    pub(super) rootfs: &'a Rootfs,
    /// In the root.
    pub(super) path: &'a Path,
    /// The image's name, where it is known.
    pub(super) image: Option<&'a str>,
}

impl FoundModule<'_> {
    /// What the engine makes of the module. It is read only if its file is not known, and compiled only if the cache has
    /// no such artifact. `check` may refuse a module for what it exports.
    ///
    /// # Errors
    /// There is no such module, or it cannot run.
    pub(super) fn compiled(
        &self,
        engine: &dyn Engine,
        operator: &OperatorConfig,
        check: impl Fn(&ModuleInfo) -> anyhow::Result<()>,
    ) -> anyhow::Result<Entry> {
        // The image chose it.
        let path = printable(&self.path.to_string_lossy());
        let cannot_run = || format!("the module {path} cannot run");
        let cannot_read = || format!("cannot read the module {path}");
        let file = self.rootfs.open(self.path).with_context(cannot_read)?;
        let known_as = self.rootfs.module_file(self.path, &file);
        let cache = open_cache(&operator.artifact_cache);
        if let (Some(cache), Some(known_as)) = (&cache, &known_as)
            && let Some(entry) = cache.find(engine, known_as)
        {
            check(&entry.description.info).with_context(cannot_run)?;
            return Ok(entry);
        }
        let module = ModuleBytes::read(&file).with_context(cannot_read)?;
        let info = ModuleInfo::read(&module).with_context(cannot_run)?;
        check(&info).with_context(cannot_run)?;
        let description = Description { name: self.name(), info };
        let compile = || compile::in_child(engine.name(), &module, &operator.compiler).with_context(cannot_run);
        let Some(cache) = cache else { return Ok(Entry { artifact: compile()?, description }) };
        let key = ArtifactKey::new(engine, &module);
        let entry = cache.get_or_compile(&key, description, compile)?;
        // The bytes that were read are those of the file only if it is still the same.
        if let Some(known_as) = known_as
            && self.rootfs.module_file(self.path, &file).as_ref() == Some(&known_as)
        {
            cache.remember(engine, &known_as, &key);
        }
        Ok(entry)
    }

    fn name(&self) -> String {
        let path = self.path.display();
        self.image.map_or_else(|| path.to_string(), |image| format!("{image} {path}"))
    }
}

fn open_cache(config: &ArtifactCacheConfig) -> Option<ArtifactCache> {
    match ArtifactCache::open(&config.folder, config.max_bytes) {
        Ok(cache) => Some(cache),
        Err(error) => {
            let folder = config.folder.display();
            tracing::warn!(%folder, %error, "no artifact cache: the module is compiled for this container alone");
            None
        }
    }
}
