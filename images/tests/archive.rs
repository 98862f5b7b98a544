//! What an archive holds, read back with other eyes than those that wrote it.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Read;

use images::Image;
use oci_spec::image::{Arch, ImageConfiguration, ImageIndex, ImageManifest, OciLayout};
use sha2::{Digest, Sha256};

/// The files of a tar archive by path; a link has its target as content.
fn unpack(archive: &[u8]) -> HashMap<String, Vec<u8>> {
    tar::Archive::new(archive)
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut content = entry.link_name_bytes().map(|target| target.to_vec()).unwrap_or_default();
            entry.read_to_end(&mut content).unwrap();
            (path, content)
        })
        .collect()
}

fn pack(image: &Image) -> Vec<u8> {
    let mut archive = Vec::new();
    image.write_archive(&mut archive).unwrap();
    archive
}

fn example() -> Image {
    Image::new("localhost/dapr-wasm/hello:dev")
        .file("/hello.wasm", b"\0asm")
        .file("/etc/config.yaml", "trigger: http\n")
        .directory("/data")
        .link("/out", "../../etc/passwd")
        .entrypoint(["/hello.wasm", "echo"])
        .environment_variable("NAME", "value")
        .working_dir("/data")
        .user("1000:1000")
        .stop_signal("SIGINT")
}

#[test]
fn an_archive_leads_from_its_name_to_every_file() {
    let archive = unpack(&pack(&example()));
    let blob = |digest: &oci_spec::image::Digest| &archive[&format!("blobs/sha256/{}", digest.digest())];

    let layout: OciLayout = serde_json::from_slice(&archive["oci-layout"]).unwrap();
    assert_eq!(layout.image_layout_version(), "1.0.0");
    let index = ImageIndex::from_reader(&archive["index.json"][..]).unwrap();
    let [manifest] = &index.manifests()[..] else { panic!("not one manifest: {index:?}") };
    let annotations = manifest.annotations().as_ref().unwrap();
    assert_eq!(annotations["io.containerd.image.name"], "localhost/dapr-wasm/hello:dev");
    assert_eq!(annotations["org.opencontainers.image.ref.name"], "dev");

    let manifest = ImageManifest::from_reader(&blob(manifest.digest())[..]).unwrap();
    let [layer] = &manifest.layers()[..] else { panic!("not one layer: {manifest:?}") };
    let configuration = ImageConfiguration::from_reader(&blob(manifest.config().digest())[..]).unwrap();
    assert_eq!(configuration.rootfs().diff_ids(), &[layer.digest().to_string()]);
    assert_eq!(configuration.architecture(), &Arch::default());
    let config = configuration.config().as_ref().unwrap();
    assert_eq!(config.entrypoint().as_deref(), Some(&["/hello.wasm".to_owned(), "echo".to_owned()][..]));
    assert_eq!(config.env().as_deref(), Some(&["NAME=value".to_owned()][..]));
    assert_eq!(config.working_dir().as_deref(), Some("/data"));
    assert_eq!(config.user().as_deref(), Some("1000:1000"));
    assert_eq!(config.stop_signal().as_deref(), Some("SIGINT"));

    let files = unpack(blob(layer.digest()));
    assert_eq!(files["hello.wasm"], b"\0asm");
    assert_eq!(files["etc/config.yaml"], b"trigger: http\n");
    assert_eq!(files["data"], b"");
    assert_eq!(files["out"], b"../../etc/passwd");
}

#[test]
fn every_blob_has_the_digest_and_the_size_it_is_known_by() {
    let archive = unpack(&pack(&example()));
    for (path, content) in &archive {
        if let Some(digest) = path.strip_prefix("blobs/sha256/") {
            let actual: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(actual, digest);
        }
    }
    let index = ImageIndex::from_reader(&archive["index.json"][..]).unwrap();
    let manifest = &index.manifests()[0];
    assert_eq!(manifest.size(), archive[&format!("blobs/sha256/{}", manifest.digest().digest())].len() as u64);
}

#[test]
fn the_same_image_is_the_same_bytes() {
    assert_eq!(pack(&example()), pack(&example()));
}
