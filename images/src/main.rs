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
    /// The Wasm module, which becomes /FILE-NAME in the image and its entry point, and more files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let Arguments { name, archive, files } = Arguments::parse();
    let mut image = Image::new(name).entrypoint([path_in_image(&files[0])?]);
    for file in &files {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        image = image.file(path_in_image(file)?, content);
    }
    write(&image, &archive).with_context(|| format!("cannot pack {}", archive.display()))
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
