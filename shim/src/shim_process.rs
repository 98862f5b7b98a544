//! The shim: what containerd starts, once to begin a sandbox's shim, and once to clean up behind a container's.

mod cgroup;
mod container;
mod creations;
mod info;
mod launch;
mod options;
mod poststop;
mod process;
mod publisher;
mod reaper;
mod server;
mod signal;
mod socket;
mod spec;
mod start;
mod stdio;
mod task_service;
mod task_state;
mod terminal;
mod to_its_end;

use std::env;
use std::fs::read_to_string;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::exit;

use anyhow::bail;
use containerd_shim::Flags;
use containerd_shim::api::DeleteResponse;
use containerd_shim::protos::protobuf::Message as _;
use containerd_shim::util::timestamp;
use tokio::runtime::{Builder, Runtime};

use container::Leftovers;

/// For whoever executes the shim by hand.
const USAGE: &str = "containerd executes this program with start or delete; -v prints the version";

/// Runs the shim as its command line says, and ends the process. `runtime_id` is the runtime's name in containerd,
/// such as `io.containerd.dapr.v1`.
pub fn main(runtime_id: &str) {
    let args: Vec<_> = env::args_os().skip(1).collect();
    let flags = containerd_shim::parse(&args).unwrap_or_else(|error| {
        eprintln!("{runtime_id}: {error} ({USAGE})");
        exit(2);
    });
    if let Err(error) = run(runtime_id, flags) {
        eprintln!("{runtime_id}: {error:#}");
        exit(1);
    }
}

fn run(runtime_id: &str, flags: Flags) -> anyhow::Result<()> {
    match flags.action.as_str() {
        _ if flags.version => {
            let program = env::args().next().unwrap_or_default();
            let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
            println!("{program}:\n  Version: {}\n  Runtime: {runtime_id}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        _ if flags.info => info::answer(runtime_id),
        "start" => start::start(flags),
        "delete" => delete(),
        action => bail!("unknown action {action:?} ({USAGE})"),
    }
}

/// The shim of this container has gone: ends what it left, which is nothing where it went in order.
fn delete() -> anyhow::Result<()> {
    let bundle = env::current_dir()?;
    let pid = match Leftovers::of(&bundle) {
        Some(leftovers) => one_thread()?.block_on(async {
            // Hooks are children.
            reaper::start()?;
            io::Result::Ok(leftovers.remove().await)
        })?,
        None => 0,
    };
    if let Ok(address) = read_to_string("address") {
        let _ = socket::remove_dead(&address);
    }
    let exited_at = Some(timestamp()?).into();
    let response = DeleteResponse { pid, exit_status: 128 + 9, exited_at, ..DeleteResponse::default() };
    Ok(io::stdout().write_all(&response.write_to_bytes()?)?)
}

/// The shim waits, and works on one small thing at a time.
fn one_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(4).build()
}
