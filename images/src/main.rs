//! `pack-image`: files in, OCI archive out.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use images::Image;

/// Packs a Wasm module, and files it needs, as an OCI archive for `ctr image import`.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Name of the image, such as localhost/me/app:dev.
    name: String,
    /// The archive to write.
    archive: PathBuf,
    /// The Wasm module, which becomes /FILE-NAME in the image and its entry point, and more files and folders.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { name, archive, files } = Arguments::parse();
    let mut image = Image::new(name).entrypoint([path_in_image(&files[0])?]);
    for file in &files {
        image = add(image, path_in_image(file)?, file)?;
    }
    write(&image, &archive).with_context(|| format!("cannot pack {}", archive.display()))
}

/// Adds a file, or a folder with all that is in it, in the order of the names.
fn add(image: Image, path: String, from: &Path) -> Result<Image> {
    let unreadable = || format!("cannot read {}", from.display());
    if !from.is_dir() {
        return Ok(image.file(path, fs::read(from).with_context(unreadable)?));
    }
    let entries = fs::read_dir(from).with_context(unreadable)?;
    let mut children: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    children.sort();
    children
        .iter()
        .try_fold(image.directory(&path), |image, child| add(image, format!("{path}{}", path_in_image(child)?), child))
}

fn path_in_image(file: &Path) -> Result<String> {
    let name = file.file_name().and_then(|name| name.to_str());
    Ok(format!("/{}", name.with_context(|| format!("not the name of a file: {}", file.display()))?))
}

/// Writes next to the archive and renames, so that nobody imports half an image.
fn write(image: &Image, archive: &Path) -> Result<()> {
    let unfinished = archive.with_extension("unfinished");
    image.write_archive(BufWriter::new(File::create(&unfinished)?))?;
    Ok(fs::rename(&unfinished, archive)?)
}
