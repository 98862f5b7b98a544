//! What a container sees of its cgroups, version 1.
//!
//! libcontainer's own mounts of them are writable, whatever the spec says, so that root in a container could raise its
//! limits. And to make them it looks on the node for a process by its number in the container's PID namespace: in
//! one that is shared, there may be none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use libcgroups::common::{CgroupSetup, get_cgroup_setup};
use libcgroups::v1::util::list_supported_mount_points;
use oci_spec::runtime::{Mount, MountBuilder, Spec};

const READ_ONLY: [&str; 5] = ["bind", "ro", "nosuid", "nodev", "noexec"];

/// The spec's mounts, with a folder of read-only ones, one a controller, in the place of a mount of type `cgroup`; none
/// where there is nothing to replace. `cgroup` is the container's folder below the root of a hierarchy.
pub(super) fn replaced(spec: &Spec, cgroup: &Path) -> anyhow::Result<Option<Vec<Mount>>> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    if !mounts.iter().any(is_cgroup) {
        return Ok(None);
    }
    if let CgroupSetup::Unified = get_cgroup_setup().context("cannot tell the version of cgroups")? {
        return Ok(None);
    }
    let mut replaced = Vec::new();
    for mount in mounts {
        if is_cgroup(mount) {
            replaced.extend(of_controllers(mount.destination(), cgroup)?)
        } else {
            replaced.push(mount.clone())
        }
    }
    Ok(Some(replaced))
}

fn is_cgroup(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("cgroup")
}

fn of_controllers(destination: &Path, cgroup: &Path) -> anyhow::Result<Vec<Mount>> {
    // A hierarchy of two controllers is known by their names and by that of its folder.
    let mut hierarchies: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (controller, hierarchy) in list_supported_mount_points().context("cannot list the cgroup hierarchies")? {
        hierarchies.extend(hierarchy.file_name().map(|name| (name.into(), hierarchy.clone())));
        hierarchies.insert(controller.to_string().into(), hierarchy);
    }
    let folder = mount("tmpfs", Path::new("tmpfs"), destination, &["nosuid", "nodev", "noexec", "mode=755"]);
    let controllers = hierarchies
        .into_iter()
        .map(|(name, hierarchy)| mount("bind", &hierarchy.join(cgroup), &destination.join(name), &READ_ONLY));
    std::iter::once(folder).chain(controllers).collect()
}

fn mount(kind: &str, source: &Path, destination: &Path, options: &[&str]) -> anyhow::Result<Mount> {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    Ok(MountBuilder::default().typ(kind).source(source).destination(destination).options(options).build()?)
}
