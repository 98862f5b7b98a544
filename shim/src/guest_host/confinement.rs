//! What libcontainer leaves to its caller, of a process that is not executed or that joins a container.

use std::io;

use anyhow::{Context as _, ensure};
use libcontainer::capabilities::drop_privileges;
use libcontainer::seccomp::{initialize_seccomp, is_notify};
use libcontainer::syscall::syscall::SyscallType;
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxSeccomp, Process, Spec};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, capability_is_in_ambient_set, set_capabilities};

/// What takes rights from a process: libcontainer gives the container's seccomp filter to its first process only.
#[derive(Clone, Default)]
pub(super) struct Confinement {
    seccomp: Option<LinuxSeccomp>,
    /// The process's own, where it keeps more until the filter is loaded.
    capabilities: Option<LinuxCapabilities>,
}

impl Confinement {
    /// The process for libcontainer, and what is to be applied inside it. A filter can be loaded by a process that
    /// can gain no privileges any more, or by one with `CAP_SYS_ADMIN` (seccomp(2)): that one drops it afterwards.
    pub(super) fn split(mut process: Process, spec: &Spec) -> anyhow::Result<(Process, Self)> {
        let Some(seccomp) = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()) else {
            return Ok((process, Self::default()));
        };
        ensure!(!is_notify(&seccomp), "a container whose seccomp filter notifies a listener takes no further process");
        let mut own = None;
        if process.no_new_privileges() != Some(true)
            && let Some(capabilities) = process.capabilities().clone()
        {
            let mut raised = capabilities.clone();
            raised.set_bounding(with_loaders(capabilities.bounding()));
            raised.set_effective(with_loaders(capabilities.effective()));
            raised.set_permitted(with_loaders(capabilities.permitted()));
            process.set_capabilities(Some(raised));
            own = Some(capabilities);
        }
        Ok((process, Self { seccomp: Some(seccomp), capabilities: own }))
    }

    /// Applies it to this process, which must have one thread.
    pub(super) fn apply(&self) -> anyhow::Result<()> {
        if let Some(seccomp) = &self.seccomp {
            initialize_seccomp(seccomp).context("cannot load the container's seccomp filter")?;
        }
        if let Some(capabilities) = &self.capabilities {
            let syscall = SyscallType::default().create_syscall();
            drop_privileges(capabilities, &*syscall).context("cannot drop capabilities")?;
        }
        Ok(())
    }
}

/// Says what the spec of a process leaves out, as runc takes it. To libcontainer, a set of capabilities that is not there is
/// whatever this process has: all of them. A further process without any has those of the container's `first`.
pub(super) fn complete(process: &mut Process, first: Option<&Process>) {
    let given = process.capabilities().clone().or_else(|| first?.capabilities().clone());
    let mut capabilities = given.unwrap_or_else(none);
    let all_there = |set: &Option<Capabilities>| Some(set.clone().unwrap_or_default());
    capabilities.set_bounding(all_there(capabilities.bounding()));
    capabilities.set_effective(all_there(capabilities.effective()));
    capabilities.set_permitted(all_there(capabilities.permitted()));
    capabilities.set_inheritable(all_there(capabilities.inheritable()));
    capabilities.set_ambient(all_there(capabilities.ambient()));
    process.set_capabilities(Some(capabilities));
}

/// Not the default, which are some.
fn none() -> LinuxCapabilities {
    let mut capabilities = LinuxCapabilities::default();
    for set in [
        LinuxCapabilities::set_bounding,
        LinuxCapabilities::set_effective,
        LinuxCapabilities::set_permitted,
        LinuxCapabilities::set_inheritable,
        LinuxCapabilities::set_ambient,
    ] {
        set(&mut capabilities, Some(Capabilities::new()));
    }
    capabilities
}

/// With what loading a filter takes, and dropping that again.
fn with_loaders(capabilities: &Option<Capabilities>) -> Option<Capabilities> {
    let mut capabilities = capabilities.clone().unwrap_or_default();
    capabilities.extend([Capability::SysAdmin, Capability::Setpcap]);
    Some(capabilities)
}

/// Takes from this process, which must have one thread, what an execution would have taken: a user other than root
/// keeps its ambient capabilities alone (capabilities(7), 'Transformation of capabilities during execve').
pub(super) fn drop_as_an_execution_would() -> io::Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    let mut ambient = CapabilitySet::empty();
    for capability in CapabilitySet::all().iter() {
        match capability_is_in_ambient_set(capability) {
            Ok(true) => ambient.insert(capability),
            // A kernel does not know every capability.
            Ok(false) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let inheritable = capabilities(None)?.inheritable;
    Ok(set_capabilities(None, CapabilitySets { effective: ambient, permitted: ambient, inheritable })?)
}
