//! Compiling the modules of an image before a container needs them, on behalf of `dapr-wasm`.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use engines::artifact_cache::Entry;
use engines::engine::Engine;
use rustix::io::dup;
use rustix::stdio::stderr;

use super::GuestHost;
use super::compiled::FoundModule;
use super::rootfs::Rootfs;
use crate::logging;
use crate::printable::printable;
use crate::protocol::WarmImage;
use crate::quantity::megabytes;

/// The first bytes of every core module.
const CORE_MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

/// Does what standard input asks for, and says on standard output what becomes of each module.
///
/// # Errors
/// No module could be compiled for every engine that was asked for.
pub(super) fn warm(guest_host: &GuestHost) -> anyhow::Result<()> {
    // Of the cache, why it cannot keep something.
    logging::init(File::from(dup(stderr())?), false);
    let request: WarmImage = serde_json::from_reader(io::stdin().lock()).context("this is for dapr-wasm to call")?;
    let rootfs = Rootfs::open_root(&request.root, &[])?.made_of(&request.mounts);
    let engines = engines(guest_host, &request.engines)?;
    let modules = modules(&request.root, &rootfs)?;
    ensure!(!modules.is_empty(), "there is no Wasm module in {}", request.image);
    let mut ready = 0;
    for path in &modules {
        let module = FoundModule { rootfs: &rootfs, path, image: Some(&request.image) };
        let mut all = true;
        for engine in &engines {
            all &= prepare(&module, &**engine, &request)?;
        }
        ready += usize::from(all);
    }
    ensure!(ready > 0, "none of the modules in {} is in the cache for all of the engines", request.image);
    Ok(())
}

fn engines(guest_host: &GuestHost, names: &[String]) -> anyhow::Result<Vec<Arc<dyn Engine>>> {
    if names.is_empty() {
        return Ok(guest_host.engines.clone());
    }
    names.iter().map(|name| guest_host.find_engine(name)).collect()
}

/// Whether the artifact is there now.
fn prepare(module: &FoundModule<'_>, engine: &dyn Engine, request: &WarmImage) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    write!(out, "{} {}: ", printable(&module.path.to_string_lossy()), engine.name())?;
    out.flush()?;
    let begin = Instant::now();
    match module.compiled(engine, &request.operator, |_| Ok(())) {
        // A file in memory has no name anywhere.
        Ok(Entry { artifact, .. }) if artifact.file().metadata()?.nlink() == 0 => {
            writeln!(out, "compiled, but the cache cannot keep it")?;
            Ok(false)
        }
        Ok(Entry { artifact, .. }) => {
            let (seconds, size) = (begin.elapsed().as_secs_f64(), megabytes(artifact.length()));
            writeln!(out, "{size}, ready after {seconds:.1} s")?;
            Ok(true)
        }
        Err(error) => {
            writeln!(out, "left out: {}", printable(&format!("{error:#}")))?;
            Ok(false)
        }
    }
}

/// The core modules of an image, as paths in it. Links are not followed.
fn modules(root: &Path, rootfs: &Rootfs) -> anyhow::Result<Vec<PathBuf>> {
    let mut modules = Vec::new();
    let mut unseen = vec![root.to_owned()];
    while let Some(folder) = unseen.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                unseen.push(entry.path());
            } else if kind.is_file() {
                let path = Path::new("/").join(entry.path().strip_prefix(root)?);
                modules.extend(is_core_module(rootfs, &path).then_some(path));
            }
        }
    }
    modules.sort();
    Ok(modules)
}

fn is_core_module(rootfs: &Rootfs, path: &Path) -> bool {
    let mut start = [0; CORE_MODULE.len()];
    let read = rootfs.open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == CORE_MODULE
}
