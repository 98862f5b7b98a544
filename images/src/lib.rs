//! Container images without a container builder and without a registry: files become one layer, and layer and
//! configuration an OCI archive, which `ctr image import` takes.
//!
//! The format is the OCI image layout 1.0 in a tar file; the layer is not compressed. The same [`Image`] always
//! gives the same bytes.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, Write};

use oci_spec::OciSpecError;
use oci_spec::image::{
    ANNOTATION_REF_NAME, Arch, ConfigBuilder, Descriptor, ImageConfiguration, ImageConfigurationBuilder,
    ImageIndexBuilder, ImageManifestBuilder, MediaType, OciLayoutBuilder, Os, RootFsBuilder, SCHEMA_VERSION,
    Sha256Digest,
};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Where containerd looks for the full name of an image in an archive.
const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image of one layer for Linux on the architecture this was compiled for.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
    environment: Vec<String>,
    working_dir: String,
    user: String,
    stop_signal: Option<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Directory,
    File(Vec<u8>),
    Link { target: String },
}

/// Why an image could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot write the archive: {0}")]
    Write(#[from] io::Error),
    #[error("not a valid image: {0}")]
    Spec(#[from] OciSpecError),
}

impl Image {
    /// An empty image. `name` is the full reference: `localhost/dapr-wasm/hello:dev`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            entries: Vec::new(),
            entrypoint: Vec::new(),
            environment: Vec::new(),
            working_dir: "/".to_owned(),
            user: "0:0".to_owned(),
            stop_signal: None,
        }
    }

    /// Adds a file that everyone may read and run. Paths are absolute, here and below; the directories above need no entry.
    pub fn file(self, path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        self.entry(path, Content::File(content.into()))
    }

    /// Adds a directory that may be empty.
    pub fn directory(self, path: impl Into<String>) -> Self {
        self.entry(path, Content::Directory)
    }

    /// Adds a symbolic link. The target is kept as it is, wherever it leads.
    pub fn link(self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.entry(path, Content::Link { target: target.into() })
    }

    /// The words of the entry point; the first names the Wasm module.
    pub fn entrypoint<W: Into<String>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds `NAME=VALUE` to the environment of the container.
    pub fn environment_variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Where the container starts; `/` unless told.
    pub fn working_dir(mut self, path: impl Into<String>) -> Self {
        self.working_dir = path.into();
        self
    }

    /// Who the container's process is, such as `1000:1000`; root unless told.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// What the container is to be stopped with, such as `SIGINT`; SIGTERM unless told.
    pub fn stop_signal(mut self, signal: impl Into<String>) -> Self {
        self.stop_signal = Some(signal.into());
        self
    }

    fn entry(mut self, path: impl Into<String>, content: Content) -> Self {
        self.entries.push(Entry { path: path.into(), content });
        self
    }

    /// Writes the image as an OCI archive.
    pub fn write_archive(&self, to: impl Write) -> Result<(), Error> {
        let layer = self.layer()?;
        let layer = Blob::new(MediaType::ImageLayer, layer);
        let config = Blob::json(MediaType::ImageConfig, &self.configuration(&layer)?)?;
        let manifest = Blob::json(
            MediaType::ImageManifest,
            &ImageManifestBuilder::default()
                .schema_version(SCHEMA_VERSION)
                .media_type(MediaType::ImageManifest)
                .config(config.descriptor()?)
                .layers([layer.descriptor()?])
                .build()?,
        )?;
        let mut named_manifest = manifest.descriptor()?;
        named_manifest.set_annotations(Some(self.annotations()));
        let index = ImageIndexBuilder::default()
            .schema_version(SCHEMA_VERSION)
            .media_type(MediaType::ImageIndex)
            .manifests([named_manifest])
            .build()?;
        let layout = OciLayoutBuilder::default().image_layout_version("1.0.0").build()?;

        let mut archive = tar::Builder::new(to);
        append_file(&mut archive, "oci-layout", &json(&layout)?)?;
        append_file(&mut archive, "index.json", &json(&index)?)?;
        for blob in [&manifest, &config, &layer] {
            append_file(&mut archive, &format!("blobs/sha256/{}", blob.digest), &blob.bytes)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }

    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        for Entry { path, content } in &self.entries {
            let path = path.trim_start_matches('/');
            match content {
                Content::File(bytes) => append_file(&mut layer, path, bytes)?,
                Content::Directory => {
                    layer.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), path, io::empty())?;
                }
                Content::Link { target } => {
                    layer.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?;
                }
            }
        }
        layer.into_inner()
    }

    fn configuration(&self, layer: &Blob) -> Result<ImageConfiguration, OciSpecError> {
        let mut config = ConfigBuilder::default()
            .entrypoint(self.entrypoint.clone())
            .env(self.environment.clone())
            .working_dir(self.working_dir.clone())
            .user(self.user.clone())
            .build()?;
        config.set_stop_signal(self.stop_signal.clone());
        ImageConfigurationBuilder::default()
            .architecture(Arch::default())
            .os(Os::Linux)
            .config(config)
            .rootfs(RootFsBuilder::default().diff_ids([format!("sha256:{}", layer.digest)]).build()?)
            .build()
    }

    fn annotations(&self) -> HashMap<String, String> {
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        HashMap::from([
            (ANNOTATION_CONTAINERD_NAME.to_owned(), self.name.clone()),
            (ANNOTATION_REF_NAME.to_owned(), tag.to_owned()),
        ])
    }
}

/// A content-addressed part of the archive.
struct Blob {
    media_type: MediaType,
    bytes: Vec<u8>,
    /// SHA-256 in lower-case hexadecimal.
    digest: String,
}

impl Blob {
    fn new(media_type: MediaType, bytes: Vec<u8>) -> Self {
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { media_type, bytes, digest }
    }

    fn json(media_type: MediaType, document: &impl Serialize) -> Result<Self, OciSpecError> {
        Ok(Self::new(media_type, json(document)?))
    }

    fn descriptor(&self) -> Result<Descriptor, OciSpecError> {
        let digest: Sha256Digest = self.digest.parse()?;
        Ok(Descriptor::new(self.media_type.clone(), self.bytes.len() as u64, digest))
    }
}

/// JSON with sorted keys: the maps of the specification's types have no order of their own.
fn json(document: &impl Serialize) -> Result<Vec<u8>, OciSpecError> {
    let mut value = serde_json::to_value(document)?;
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}

fn append_file<W: Write>(archive: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    archive.append_data(&mut header(tar::EntryType::Regular, 0o755, bytes.len() as u64), path, bytes)
}

/// A header that says nothing about when and by whom an image was packed.
fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
