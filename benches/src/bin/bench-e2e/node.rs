//! A node with what is compared: containers of three kinds under one containerd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};
use benches::guest;
use images::Image;
use testbed::containerd::Containerd;

use crate::interruption;
use crate::machine::output;

const NATIVE: &str = "localhost/bench/native:1";
const HELLO: &str = "localhost/bench/hello:1";
const HTTP: &str = "localhost/bench/http:1";

/// What both hellos print.
const GREETING: &str = "Hello";

/// The native hello; with an argument, the native idle container.
const NATIVE_PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>

int main(int count, char **arguments) {
  if (count > 1)
    pause();
  puts("Hello from Linux!");
  return 0;
}
"#;

/// What makes a container run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// A static Linux program through Debian's runc.
    Runc,
    /// A guest on an engine.
    Engine(&'static str),
}

impl Runtime {
    /// runc, to compare with, before the engines.
    pub(crate) fn all() -> Vec<Self> {
        [Self::Runc].into_iter().chain(Self::engines()).collect()
    }

    pub(crate) fn engines() -> Vec<Self> {
        engines::built_in().iter().map(|engine| Self::Engine(engine.name())).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Engine(name) => name,
        }
    }
}

/// Ends with all its containers when it is dropped.
pub(crate) struct Node {
    containerd: Containerd,
    runc_root: String,
    operator_config: PathBuf,
    containers: AtomicU32,
}

impl Node {
    pub(crate) fn start() -> Result<Self> {
        interruption::check()?;
        let program = env::current_exe()?;
        let containerd = Containerd::start_as_installed(&[program.parent().context("a program is in a folder")?]);
        let folder = containerd.folder();
        let native = compile(NATIVE_PROGRAM, &folder.join("native"))?;
        containerd.import_image(&Image::new(NATIVE).file("/hello", native).entrypoint(["/hello"]));
        let hello = Image::new(HELLO).file("/hello.wasm", guest("hello")).entrypoint(["/hello.wasm"]);
        containerd.import_image(&hello);
        let http = Image::new(HTTP).file("/http.wasm", guest("http")).file("/config.yaml", "trigger: http\n");
        containerd.import_image(&http.entrypoint(["/http.wasm"]));
        let runc_root = folder.join("runc").display().to_string();
        let operator_config = write_operator_config(folder, "artifacts")?;
        Ok(Self { containerd, runc_root, operator_config, containers: AtomicU32::new(0) })
    }

    pub(crate) fn containerd_version(&self) -> Result<String> {
        let versions = output(&mut self.containerd.ctr_command(&["version"]))?;
        let server = versions.lines().skip_while(|line| !line.starts_with("Server"));
        let version = server.filter_map(|line| line.trim().strip_prefix("Version:")).next();
        Ok(version.context("no version in the output of ctr version")?.trim().to_owned())
    }

    /// Runs hello to its end and removes it.
    pub(crate) fn hello(&self, runtime: Runtime) -> Result<Duration> {
        self.hello_with(runtime, &self.operator_config)
    }

    /// The same, where no artifact is in the cache.
    pub(crate) fn hello_for_the_first_time(&self, runtime: Runtime) -> Result<Duration> {
        let cache = format!("artifacts-{}", self.containers.load(Ordering::Relaxed));
        self.hello_with(runtime, &write_operator_config(self.containerd.folder(), &cache)?)
    }

    fn hello_with(&self, runtime: Runtime, operator_config: &Path) -> Result<Duration> {
        let image = if runtime == Runtime::Runc { NATIVE } else { HELLO };
        let mut command = self.run_command(runtime, operator_config, &["--rm"], image, &[]);
        let started = Instant::now();
        let printed = output(&mut command)?;
        let wall = started.elapsed();
        ensure!(printed.starts_with(GREETING), "{}: hello printed {printed:?}", runtime.name());
        Ok(wall)
    }

    /// Starts a container that waits: an HTTP guest for requests, a native one for a signal.
    pub(crate) fn start_idle(&self, runtime: Runtime) -> Result<()> {
        let options = ["--detach", "--null-io"];
        let mut command = match runtime {
            Runtime::Runc => self.run_command(runtime, &self.operator_config, &options, NATIVE, &["/hello", "wait"]),
            Runtime::Engine(_) => self.run_command(runtime, &self.operator_config, &options, HTTP, &[]),
        };
        output(&mut command).map(drop)
    }

    /// Starts an HTTP guest on a port of this machine.
    pub(crate) fn start_http(&self, runtime: Runtime, port: u16) -> Result<()> {
        let port = format!("dapr.wasm/port={port}");
        let options = ["--detach", "--null-io", "--net-host", "--annotation", &port];
        output(&mut self.run_command(runtime, &self.operator_config, &options, HTTP, &[])).map(drop)
    }

    /// Shims, and what runs in containers.
    pub(crate) fn processes(&self) -> Vec<i32> {
        self.containerd.processes()
    }

    fn run_command(
        &self,
        runtime: Runtime,
        operator_config: &Path,
        options: &[&str],
        image: &str,
        arguments: &[&str],
    ) -> Command {
        let mut command = self.containerd.ctr_command(&["run"]);
        match runtime {
            Runtime::Runc => command.args(["--runtime", "io.containerd.runc.v2", "--runc-root", &self.runc_root]),
            Runtime::Engine(name) => command
                .args(["--runtime", "io.containerd.dapr.v1", "--runtime-config-path"])
                .arg(operator_config)
                .arg(format!("--annotation=dapr.wasm/engine={name}")),
        };
        let container = format!("bench-{}", self.containers.fetch_add(1, Ordering::Relaxed));
        command.args(options).args([image, &container]).args(arguments);
        command
    }
}

/// Has the artifacts in a folder that goes with the node.
fn write_operator_config(folder: &Path, cache: &str) -> Result<PathBuf> {
    let path = folder.join(cache).with_extension("yaml");
    fs::write(&path, format!("artifactCache: {{folder: {}}}\n", folder.join(cache).display()))?;
    Ok(path)
}

/// A program that needs no other file.
fn compile(source: &str, program: &Path) -> Result<Vec<u8>> {
    let file = program.with_extension("c");
    fs::write(&file, source)?;
    output(Command::new("gcc").args(["-static", "-O2", "-s", "-o"]).args([program, &file]))?;
    Ok(fs::read(program)?)
}
