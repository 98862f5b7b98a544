//! What containers that wait cost.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::interruption;
use crate::machine::read;
use crate::node::{Node, Runtime};
use crate::report::{Goal, Line, Measurement, Unit, Value};

const CONTAINERS: u32 = 10;
/// Until what only starts and helps to start has gone.
const SETTLE: Duration = Duration::from_secs(1);

/// The memory of one of ten idle containers with its shim.
pub(crate) fn of_idle_containers() -> Result<Measurement> {
    let mut lines = [
        Line::new("all processes", Vec::new(), vec![Goal::at_most(4.0)]),
        Line::new("of that, the shim", Vec::new(), Vec::new()),
        Line::new("of that, shared with nobody", Vec::new(), Vec::new()),
    ];
    for runtime in Runtime::all() {
        eprintln!("{CONTAINERS} idle containers of {}", runtime.name());
        let node = Node::start()?;
        for _ in 0..CONTAINERS {
            interruption::check()?;
            node.start_idle(runtime)?;
        }
        thread::sleep(SETTLE);
        let processes: Vec<Process> = node.processes().into_iter().map(Process::read).collect::<Result<_>>()?;
        let shims = processes.iter().filter(|process| process.is_shim);
        ensure!(shims.clone().count() == CONTAINERS as usize, "not one shim for each container: {processes:?}");
        let sums = [
            processes.iter().map(|process| process.pss).sum::<f64>(),
            shims.map(|shim| shim.pss).sum(),
            processes.iter().map(|process| process.private).sum(),
        ];
        for (line, sum) in lines.iter_mut().zip(sums) {
            line.values.push(Value { name: runtime.name(), number: sum / f64::from(CONTAINERS) });
        }
    }
    Ok(Measurement {
        title: format!("memory of an idle container and its shim, PSS, mean of {CONTAINERS} running"),
        unit: Unit::Megabytes,
        lines: lines.into(),
    })
}

/// A process and its memory in megabytes of 10⁶ bytes.
#[derive(Debug)]
struct Process {
    is_shim: bool,
    /// Pages of its own, and its share of those that others have mapped too.
    pss: f64,
    private: f64,
}

impl Process {
    fn read(pid: i32) -> Result<Self> {
        let is_shim = read(&format!("/proc/{pid}/comm"))?.starts_with("containerd-shim");
        let path = format!("/proc/{pid}/smaps_rollup");
        let rollup = read(&path)?;
        let size = |name: &str| -> Result<f64> {
            let line = rollup.lines().find_map(|line| line.strip_prefix(name));
            let size = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            Ok(size.with_context(|| format!("no {name} in {path}"))? * 1024.0 / 1e6)
        };
        let private = size("Private_Clean:")? + size("Private_Dirty:")?;
        Ok(Self { is_shim, pss: size("Pss:")?, private })
    }
}
