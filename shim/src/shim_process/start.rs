//! The beginning of a sandbox's shim: docs/decisions/0009-a-short-way-to-the-start.md.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem;
use std::path::Path;
use std::process;

use anyhow::Context as _;
use containerd_shim::cgroup::adjust_oom_score;
use containerd_shim::{Flags, socket_address};
use nix::unistd::{ForkResult, fork};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::server;
use super::socket::Socket;
use super::spec::Spec;
use crate::inheritance::close_on_execution;

/// Annotations by which the containers of a sandbox find their shim: Kubernetes' own, and the one that containerd's
/// runc shim knows beside it.
const GROUP_ANNOTATIONS: [&str; 2] = ["io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"];

/// Answers the address of the sandbox's shim on standard output. Where it does not run yet, this process is cloned, and
/// the clone is that shim: it does not come back from here before it is shut down.
pub(super) fn start(flags: Flags) -> anyhow::Result<()> {
    // A guest host takes whatever it finds open for its own, and into the container.
    close_on_execution().context("cannot keep from the containers what was open before")?;
    let sandbox = sandbox_of(&flags.id)?;
    let address = socket_address(&flags.address, &flags.namespace, &sandbox);
    fs::write("address", &address)?;
    if let Some(socket) = Socket::listen(&address)? {
        // The kernel is rather to kill the sandbox's shim than containerd.
        adjust_oom_score(process::id())?;
        // SAFETY: this process has one thread.
        #[expect(unsafe_code, reason = "see above")]
        match unsafe { fork() }? {
            ForkResult::Child => {
                leave_standard_streams()?;
                return server::serve(flags, socket);
            }
            // The clone removes it.
            ForkResult::Parent { .. } => mem::forget(socket),
        }
    }
    // containerd can connect: the socket listens, whoever is going to accept.
    Ok(io::stdout().write_all(address.as_bytes())?)
}

/// The sandbox that the container in the working directory belongs to: itself, unless its spec names another.
fn sandbox_of(id: &str) -> anyhow::Result<String> {
    let spec = Spec::of(Path::new(""))?;
    let sandbox = GROUP_ANNOTATIONS.iter().find_map(|name| spec.annotations.get(*name));
    Ok(sandbox.map_or(id, String::as_str).to_owned())
}

/// containerd waits until nobody writes to them any more.
fn leave_standard_streams() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    Ok(())
}
