//! `dapr-wasm`: what the operator of a node does by hand.

mod cache;
mod warm;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};

use anyhow::{Context as _, ensure};
use clap::{ArgAction, Args, Parser, Subcommand};
use engines::artifact_cache::ArtifactCache;

use crate::operator_config::{ArtifactCacheConfig, OperatorConfig};
use crate::printable::printable;
use crate::quantity;

/// Looks after a node that runs Wasm containers.
#[derive(Parser)]
#[command(name = "dapr-wasm", version, disable_version_flag = true)]
struct Arguments {
    /// Prints the version
    #[arg(short = 'v', short_alias = 'V', long, action = ArgAction::Version)]
    version: Option<bool>,
    /// The operator's configuration of the runtime [default: /etc/dapr-wasm/config.yaml, if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the operator's configuration, with what it leaves out; fails where it is not valid
    Config,
    /// The compiled modules of this node
    #[command(subcommand)]
    Cache(CacheCommand),
}

#[derive(Subcommand)]
enum CacheCommand {
    /// Lists the compiled modules, the one used last first
    List,
    /// Removes the modules used longest ago until the rest fits
    Prune(Prune),
    /// Reads every compiled module and removes the damaged ones; fails if there were any
    Verify,
    /// Compiles the modules of an image that containerd has, so that its containers need not wait
    Warm(Warm),
}

#[derive(Args)]
#[group(multiple = false)]
struct Prune {
    /// Removes all of them
    #[arg(long)]
    all: bool,
    /// What may stay [default: the configuration's artifactCache.maxBytes]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_bytes: Option<u64>,
}

#[derive(Args)]
struct Warm {
    /// Its name, as `ctr images list` shows it
    image: String,
    /// Compiles for this engine alone; may be given several times [default: every engine]
    #[arg(long, value_name = "NAME")]
    engine: Vec<String>,
    /// containerd's socket [default: that of ctr, $CONTAINERD_ADDRESS or /run/containerd/containerd.sock]
    #[arg(long, value_name = "SOCKET")]
    address: Option<PathBuf>,
    /// containerd's namespace; Kubernetes has its images in k8s.io [default: that of ctr, $CONTAINERD_NAMESPACE or default]
    #[arg(long)]
    namespace: Option<String>,
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        // Who reads has read enough.
        Err(error)
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("dapr-wasm: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let operator = configuration(arguments.config.as_deref())?;
    match arguments.command {
        Command::Config => {
            io::stdout().write_all(serde_yaml::to_string(&complete(operator)?)?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Cache(command) => look_after_cache(command, operator),
    }
}

/// The configuration with what it leaves out, where its guest host can be executed and has the engine that it names.
fn complete(mut operator: OperatorConfig) -> anyhow::Result<OperatorConfig> {
    let program = operator.guest_host_program()?;
    let output = process::Command::new(&program).arg("engines").output();
    let output = output.with_context(|| format!("guestHost: cannot run {}", program.display()))?;
    ensure!(output.status.success(), "guestHost: {} does not tell its engines", program.display());
    let engines = String::from_utf8_lossy(&output.stdout);
    let engines: Vec<_> = engines.lines().collect();
    if let Some(name) = &operator.default_engine {
        let known = engines.join(", ");
        ensure!(engines.contains(&name.as_str()), "defaultEngine: unknown engine {name:?}; this runtime knows {known}");
    }
    operator.default_engine = operator.default_engine.or_else(|| Some((*engines.first()?).to_owned()));
    operator.guest_host = Some(program);
    Ok(operator)
}

fn look_after_cache(command: CacheCommand, operator: OperatorConfig) -> anyhow::Result<ExitCode> {
    match command {
        CacheCommand::List => cache::list(&open_cache(&operator)?),
        CacheCommand::Prune(Prune { all, max_bytes }) => {
            let configured = operator.artifact_cache.max_bytes;
            cache::prune(&open_cache(&operator)?, if all { 0 } else { max_bytes.unwrap_or(configured) })
        }
        CacheCommand::Verify => cache::verify(&open_cache(&operator)?),
        CacheCommand::Warm(arguments) => warm::warm(&arguments, operator),
    }
}

fn open_cache(operator: &OperatorConfig) -> anyhow::Result<ArtifactCache> {
    let ArtifactCacheConfig { folder, max_bytes } = &operator.artifact_cache;
    ArtifactCache::open(folder, *max_bytes)
        .with_context(|| format!("cannot open the artifact cache {}", folder.display()))
}

fn configuration(file: Option<&Path>) -> anyhow::Result<OperatorConfig> {
    file.map_or_else(OperatorConfig::read_usual, OperatorConfig::read)
}

fn size(text: &str) -> Result<u64, String> {
    quantity::parse(text).ok_or_else(|| format!("not {}", quantity::EXPECTED))
}
