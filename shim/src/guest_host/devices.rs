//! The node's devices, which no container may reach but by its spec.
//!
//! On cgroup v1 libcontainer applies the spec's device rules. On version 2 they are programs that it does not load
//! (its feature `cgroupsv2_devices` needs libbpf and libelf on every node), so what would let a container have a device is
//! taken from it there: device nodes in its root and its volumes are dead, and it can make none.

use libcgroups::common::{CgroupSetup, get_cgroup_setup};
use oci_spec::runtime::{Capabilities, Capability, LinuxDeviceType, Mount, Process, Spec};

/// Makes the device nodes in volumes dead, with whatever is mounted below them, where [`must_confine`] says so. Those
/// in the root are (see [`super::rootfs`]).
pub(super) fn confine_volumes(mounts: &mut [Mount], spec: &Spec) {
    if !must_confine(spec) {
        return;
    }
    for volume in mounts.iter_mut().filter(|mount| is_bind(mount)) {
        let mut options = volume.options().clone().unwrap_or_default();
        options.push("rnodev".to_owned());
        volume.set_options(Some(options));
    }
}

/// Whether a mount is a folder or a file of the node, a volume.
pub(super) fn is_bind(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    mount.typ().as_deref() == Some("bind") || options.iter().any(|option| option == "bind" || option == "rbind")
}

/// Takes the right to make device nodes from a process, where [`must_confine`] says so.
pub(super) fn confine(process: &mut Process, spec: &Spec) {
    if !must_confine(spec) {
        return;
    }
    let Some(mut capabilities) = process.capabilities().clone() else { return };
    let without = |set: &Option<Capabilities>| {
        set.clone().map(|mut set| {
            set.remove(&Capability::Mknod);
            set
        })
    };
    capabilities.set_bounding(without(capabilities.bounding()));
    capabilities.set_effective(without(capabilities.effective()));
    capabilities.set_permitted(without(capabilities.permitted()));
    capabilities.set_inheritable(without(capabilities.inheritable()));
    capabilities.set_ambient(without(capabilities.ambient()));
    process.set_capabilities(Some(capabilities));
}

/// Unless the container's device rules are in force or allow every device.
fn must_confine(spec: &Spec) -> bool {
    matches!(get_cgroup_setup(), Ok(CgroupSetup::Unified)) && !allows_every_device(spec)
}

/// As a privileged container's spec does.
fn allows_every_device(spec: &Spec) -> bool {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    rules.iter().any(|rule| {
        let every_kind = rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A);
        rule.allow() && every_kind && rule.major().is_none() && rule.minor().is_none()
    })
}
