//! Compiling, in a process of its own: compilers start threads, and a process with threads must not be cloned into a
//! container.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use engines::engine::Engine;

/// Has a child compile the module.
///
/// # Errors
/// The compiler's reason, or the child's end by a signal.
pub(super) fn in_child(engine: &str, module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new(env::current_exe()?)
        .args(["compile", engine])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start the compiler")?;
    // The child reads all of the module before it writes anything, and a broken pipe means that it ended: its
    // status says why.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(module);
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    match output.status.code() {
        Some(_) => bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end()),
        None => bail!("the compiler ended with {}", output.status),
    }
}

/// The child's side: a module on standard input, its artifact on standard output.
pub(super) fn serve(engine: &dyn Engine) -> anyhow::Result<()> {
    let mut module = Vec::new();
    io::stdin().read_to_end(&mut module)?;
    let artifact = engine.compile(&module)?;
    io::stdout().write_all(&artifact)?;
    Ok(())
}
