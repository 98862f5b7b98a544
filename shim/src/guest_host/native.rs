//! Ordinary Linux programs.

use std::convert::Infallible;
use std::env;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{AccessFlags, access, execv};

/// The file that a name stands for: itself if it has a slash, else the first that can be executed in a folder of
/// `search_path`. An empty one has no folders, though an empty part of it is the working directory.
///
/// # Errors
/// There is none, or it must not be executed, in runc's words.
pub(super) fn find(name: &str, search_path: &str) -> anyhow::Result<PathBuf> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match check_executable(&path) {
            Ok(()) => Ok(path),
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => bail!("exec: {name:?}: no such file or directory"),
            Err(error) => bail!("exec: {name:?}: {}", words(error)),
        };
    }
    let mut denied = false;
    for folder in search_path.split(':').filter(|_| !search_path.is_empty()) {
        let path = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
        match check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(nix::Error::EACCES) => denied = true,
            Err(_) => {}
        }
    }
    if denied {
        bail!("exec: {name:?}: permission denied");
    }
    bail!("exec: {name:?}: executable file not found in $PATH");
}

fn check_executable(path: &Path) -> Result<(), nix::Error> {
    access(path, AccessFlags::X_OK)?;
    // To root, every folder can be executed.
    if fs::metadata(path).is_ok_and(|file| file.is_dir()) { Err(nix::Error::EACCES) } else { Ok(()) }
}

/// Executes the program in the place of this one, with this process's environment.
///
/// # Errors
/// Why that cannot be, in runc's words.
pub(super) fn execute(arguments: &[String]) -> anyhow::Result<Infallible> {
    let name = arguments.first().context("the container has no program: its arguments are empty")?;
    let path = find(name, &env::var("PATH").unwrap_or_default())?;
    let path = CString::new(path.into_os_string().into_encoded_bytes())?;
    let arguments =
        arguments.iter().map(|argument| CString::new(argument.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    // This process's own standard library ignores it, and an execution keeps that.
    // SAFETY: no handler is installed.
    #[expect(unsafe_code, reason = "see above")]
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    execv(&path, &arguments).map_err(|error| anyhow::anyhow!("exec: {name:?}: {}", words(error)))
}

fn words(error: nix::Error) -> &'static str {
    match error {
        nix::Error::EACCES => "permission denied",
        nix::Error::ENOEXEC => "exec format error",
        nix::Error::ENOENT => "no such file or directory",
        error => error.desc(),
    }
}
