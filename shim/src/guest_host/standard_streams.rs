//! The standard streams of a process.

use std::os::fd::AsFd;

use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Stat, Uid, fchown, fstat, makedev};

/// Gives the streams to the process's user, as runc does: its programs may open them again, by names such as `/dev/stdout`.
/// What cannot be given stays whose it is.
pub(super) fn give(streams: &[impl AsFd], process: Option<&Process>, spec: &Spec) {
    let Some(user) = process.map(|process| host_user(process.user().uid(), spec)) else { return };
    for stream in streams {
        if fstat(stream).is_ok_and(|status| !is_null(&status) && status.st_uid != user) {
            let given = fchown(stream, Some(Uid::from_raw(user)), None);
            let _ = given.inspect_err(|error| tracing::debug!(%error, user, "a standard stream keeps its owner"));
        }
    }
}

/// Whether a stream is /dev/null, by whatever name.
pub(super) fn is_null(status: &Stat) -> bool {
    status.st_rdev == makedev(1, 3)
}

/// A user of the container as the node knows it.
fn host_user(user: u32, spec: &Spec) -> u32 {
    let mappings = spec.linux().as_ref().and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
    let mapped = mappings.iter().find_map(|mapping| {
        let offset = user.checked_sub(mapping.container_id()).filter(|offset| *offset < mapping.size())?;
        mapping.host_id().checked_add(offset)
    });
    mapped.unwrap_or(user)
}
