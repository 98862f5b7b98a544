//! Where a container's cgroup lies and who manages it, as its spec says.

use std::path::{Component, Path, PathBuf};

use anyhow::ensure;
use libcgroups::common::{CgroupSetup, get_cgroup_setup};

use crate::systemd::Scope;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CgroupPath {
    /// As libcgroups and libcontainer take it. They know nothing of units.
    pub(crate) for_libcontainer: PathBuf,
    /// The folder below the root of a hierarchy.
    pub(crate) folder: PathBuf,
    /// The unit whose cgroup it is, where the spec names a slice and a unit of systemd's, as the CRI does where the
    /// kubelet's driver is `systemd`.
    pub(crate) scope: Option<Scope>,
}

impl CgroupPath {
    /// What the spec of a container says, if it does.
    ///
    /// # Errors
    /// The path leads to no folder below the root of a hierarchy: whatever runs in a container's cgroup ends with it.
    pub(crate) fn of(in_spec: Option<&Path>, id: &str) -> anyhow::Result<Self> {
        // libcontainer's own choice for a spec that names none.
        let in_spec = in_spec.map_or_else(|| PathBuf::from(format!(":youki:{id}")), Path::to_owned);
        let path = match in_spec.to_str().and_then(scope) {
            Some((scope, folder)) => {
                Self { for_libcontainer: Path::new("/").join(&folder), folder, scope: Some(scope) }
            }
            None => Self { folder: below_root(&in_spec), for_libcontainer: in_spec, scope: None },
        };
        let mut parts = path.folder.components().peekable();
        ensure!(
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_))),
            "a container cannot have the cgroup {:?}: its path must lead below the root, and not through \"..\"",
            path.for_libcontainer
        );
        Ok(path)
    }

    /// # Errors
    /// The path is for systemd, and there is none here that could manage it. As a plain folder it would lie outside
    /// its pod's cgroup, and the pod's limits would not hold.
    pub(crate) fn ensure_manageable(&self) -> anyhow::Result<()> {
        let unified = matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified));
        ensure!(
            self.scope.is_none() || (unified && Path::new("/run/systemd/system").is_dir()),
            "the cgroup {} is for the systemd cgroup driver, which takes systemd and cgroup v2 on this node; \
             set the kubelet's cgroupDriver to cgroupfs",
            self.folder.display()
        );
        Ok(())
    }
}

fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// The unit that `slice:prefix:name` stands for, and its folder; none where the path has another form. systemd nests
/// slices by their dashes: `a-b.slice` lies in `a.slice`.
fn scope(path: &str) -> Option<(Scope, PathBuf)> {
    let mut parts = path.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    let stem = slice.strip_suffix(".slice")?;
    if parts.next().is_some() || path.contains('/') {
        return None;
    }
    let mut folder = PathBuf::new();
    if stem != "-" {
        let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
        folder.extend(ends.map(|end| format!("{}.slice", &stem[..end])));
    }
    let name = format!("{prefix}-{name}.scope");
    folder.push(&name);
    Some((Scope { slice: slice.to_owned(), name }, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_and_a_unit_are_systemd_s_and_anything_else_is_a_folder() {
        for (cgroups_path, folder, is_unit) in [
            ("/default/app", "default/app", false),
            ("default/app", "default/app", false),
            (":youki:id", ":youki:id", false),
            ("/a.slice:b:c", "a.slice:b:c", false),
            ("system.slice:dapr:app", "system.slice/dapr-app.scope", true),
            (
                "kubepods-burstable-pod1.slice:cri-containerd:app",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-app.scope",
                true,
            ),
            ("-.slice:dapr:app", "dapr-app.scope", true),
        ] {
            let path = CgroupPath::of(Some(Path::new(cgroups_path)), "id").expect("below the root");
            assert_eq!((path.folder.to_str(), path.scope.is_some()), (Some(folder), is_unit), "{cgroups_path}");
        }
        let path = CgroupPath::of(None, "id").expect("below the root");
        assert_eq!(path.folder.to_str(), Some(":youki:id"));
    }

    #[test]
    fn a_cgroup_that_is_not_below_the_root_is_refused() {
        for cgroups_path in ["", "/", "//", ".", "/.", "./a", "..", "/..", "a/..", "/a/../b", "/a/.."] {
            let refusal = CgroupPath::of(Some(Path::new(cgroups_path)), "id").expect_err(cgroups_path).to_string();
            assert!(refusal.contains(&format!("cannot have the cgroup {cgroups_path:?}")), "{refusal}");
        }
    }
}
