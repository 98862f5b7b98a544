//! The machine: what it is, and how busy it was.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::node::Node;

/// A tick of `/proc/stat`: USER_HZ is 100 on x86-64, whatever the kernel's own clock does.
const TICK: Duration = Duration::from_millis(10);

/// What figures depend on, in one line.
pub(crate) fn describe() -> Result<String> {
    let cores = thread::available_parallelism()?;
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("an unknown processor");
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let containerd = Node::start()?.containerd_version()?;
    let runc = output(Command::new("runc").arg("--version"))?;
    let runc = runc.lines().next().unwrap_or_default().trim_start_matches("runc version ");
    let describe = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty", "--exclude=*"];
    let commit = output(Command::new("git").args(describe)).unwrap_or_else(|_| "unknown".to_owned());
    Ok(format!(
        "{cores} cores of {}, Linux {}, containerd {containerd}, runc {runc}, this project at {}",
        model.trim_start_matches(['\t', ' ', ':']),
        kernel.trim(),
        commit.trim(),
    ))
}

/// The effective user of this process.
pub(crate) fn user_id() -> Result<u32> {
    let status = read("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("no Uid in /proc/self/status")?;
    let effective = line.split_whitespace().nth(1).context("no effective Uid in /proc/self/status")?;
    Ok(effective.parse()?)
}

/// A moment, since which it can be told how busy the machine was.
pub(crate) struct Moment {
    at: Instant,
    idle: Duration,
    processors: u32,
}

impl Moment {
    pub(crate) fn now() -> Result<Self> {
        let stat = read("/proc/stat")?;
        let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
        let all =
            stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no line cpu in /proc/stat")?;
        let ticks = all.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>().context("/proc/stat")?;
        let [_user, _nice, _system, idle, waiting, _interrupts, _soft_interrupts, stolen, ..] = ticks[..] else {
            anyhow::bail!("too few figures in /proc/stat");
        };
        let idle = TICK * (idle + waiting + stolen);
        Ok(Self { at: Instant::now(), idle, processors: processors.try_into()? })
    }

    /// The seconds that all processors together have not idled since then. It is told in ticks of 10 ms, so that only sums over
    /// many runs mean something. The kernel measures how long a processor idles; what is busy it may only look up
    /// at each tick of its clock, of which work that a tick begins is always missed.
    pub(crate) fn busy_seconds(&self) -> Result<f64> {
        let now = Self::now()?;
        let (passed, idle) = (now.at - self.at, now.idle.saturating_sub(self.idle));
        Ok(passed.as_secs_f64() * f64::from(self.processors) - idle.as_secs_f64())
    }
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// What a program prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        crate::interruption::check()?;
        anyhow::bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
