//! Compiling, in a process of its own: compilers start threads, and a process with threads must not be cloned into a
//! container; and a module may attack its compiler, so that process has no rights.

mod rights;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{self, Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, bail};
use engines::artifact_cache::{Artifact, memory_file};
use engines::engine::Engine;
use memmap2::MmapOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::dup;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use rustix::stdio;

use super::module::ModuleBytes;
use crate::inheritance::close_on_execution;
use crate::operator_config::CompilerConfig;
use crate::printable::printable;

/// Of a compiler's message, which a module may make as long as it likes.
const MAX_MESSAGE: usize = 4096;

/// Has a child compile the module.
///
/// # Errors
/// The compiler's reason, or how the child ended; a limit is named.
pub(super) fn in_child(engine: &str, module: &ModuleBytes, limits: &CompilerConfig) -> anyhow::Result<Artifact> {
    close_on_execution().context("cannot keep descriptors from the compiler")?;
    let (artifact, message) = (memory_file("artifact")?, memory_file("message")?);
    // This very program, which lies on a mount that no path leads to.
    let mut child = Command::new("/proc/self/exe")
        .args(["compile", engine, &limits.max_memory_bytes.to_string(), &process::id().to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(module.file().try_clone()?)
        .stdout(artifact.try_clone()?)
        .stderr(message.try_clone()?)
        .spawn()
        .context("cannot start the compiler")?;
    match wait(&mut child, Duration::from_secs(limits.max_seconds))? {
        Some(status) if status.success() => Ok(Artifact::sealed(artifact)?),
        Some(status) => bail!("{}", failure(status, &start_of(&message)?, limits)),
        None => bail!("compiling it takes longer than {} s (compiler.maxSeconds)", limits.max_seconds),
    }
}

/// Waits for a child's end; `None`: it took too long and was killed.
fn wait(child: &mut Child, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&patience))? == 0 {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    child.wait().map(Some)
}

/// Why a compiler failed, from how it ended and what it said.
fn failure(status: ExitStatus, message: &str, limits: &CompilerConfig) -> String {
    let no_memory = ["memory allocation of", "Cannot allocate memory"].iter().any(|text| message.contains(text));
    if no_memory || status.signal() == Some(Signal::XFSZ.as_raw()) {
        return format!(
            "compiling it takes more than {} bytes of memory (compiler.maxMemoryBytes)",
            limits.max_memory_bytes
        );
    }
    let message = printable(message.trim_end());
    match status.code() {
        Some(_) => message,
        None => format!("the compiler ended with {status}: {message}"),
    }
}

fn start_of(message: &File) -> io::Result<String> {
    let mut start = vec![0; MAX_MESSAGE];
    let length = message.read_at(&mut start, 0)?;
    Ok(String::from_utf8_lossy(&start[..length]).into_owned())
}

/// The child's side: a module on standard input, its artifact on standard output. `parent` is the one who wants it.
pub(super) fn serve(engine: &dyn Engine, max_memory_bytes: u64, parent: i32) -> anyhow::Result<()> {
    let module = File::from(dup(stdio::stdin())?);
    let mut artifact = File::from(dup(stdio::stdout())?);
    // SAFETY: the parent sealed the file, so that nobody can change it.
    #[expect(unsafe_code, reason = "see above")]
    let module = unsafe { MmapOptions::new().map_copy_read_only(&module) }?;
    rights::give_up(max_memory_bytes, parent)?;
    artifact.write_all(&engine.compile(&module)?)?;
    Ok(())
}
