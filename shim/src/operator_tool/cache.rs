//! The commands on the artifact cache alone.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::SystemTime;

use engines::artifact_cache::{ArtifactCache, Listed, Pruned};
use time::OffsetDateTime;

use crate::printable::printable;
use crate::quantity::megabytes;

/// As many digits of a module's SHA-256 as tell modules apart.
const DIGITS: usize = 12;

pub(super) fn list(cache: &ArtifactCache) -> anyhow::Result<ExitCode> {
    let artifacts = cache.list()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:12} {:DIGITS$} {:>10} {:19} NAME", "ENGINE", "MODULE", "SIZE", "LAST USE (UTC)")?;
    for artifact in &artifacts {
        let Listed { engine, module, length, last_use, .. } = artifact;
        let (module, size, last_use) = (digits(module), megabytes(*length), utc(*last_use));
        writeln!(out, "{engine:12} {module:DIGITS$} {size:>10} {last_use:19} {}", name(artifact))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn prune(cache: &ArtifactCache, max_bytes: u64) -> anyhow::Result<ExitCode> {
    let Pruned { artifacts, bytes } = cache.prune(max_bytes)?;
    println!("removed {artifacts} compiled modules, {}", megabytes(bytes));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn verify(cache: &ArtifactCache) -> anyhow::Result<ExitCode> {
    let verified = cache.verify()?;
    for damaged in &verified.damaged {
        println!("damaged and removed: {} {} {}", damaged.engine, digits(&damaged.module), name(damaged));
    }
    println!("{} compiled modules are in order, {} were not", verified.whole, verified.damaged.len());
    Ok(if verified.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn digits(module: &str) -> &str {
    module.get(..DIGITS).unwrap_or(module)
}

fn name(artifact: &Listed) -> String {
    artifact.description().map_or_else(|| "(damaged)".to_owned(), |description| printable(&description.name))
}

fn utc(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    format!("{date} {hour:02}:{minute:02}:{second:02}")
}
