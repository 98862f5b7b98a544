//! `bench-e2e`: what users of a node wait and pay for. Containers run under a containerd of their own, native ones through
//! runc and guests on each engine, in turns within one run, so that the figures can be compared.

#![forbid(unsafe_code)]

mod http;
mod interruption;
mod machine;
mod memory;
mod node;
mod picture;
mod report;
mod starts;

use std::fs;

use anyhow::{Context as _, Result, bail};
use benches::target_folder;
use clap::{Parser, ValueEnum};

use picture::Picture;
use report::{Measurement, Report};

/// Measures containers end to end and compares the figures with the goals. Takes root, and leaves nothing behind but
/// its results, in target/bench.
#[derive(Parser)]
struct Arguments {
    /// Measure less often: one minute instead of five.
    #[arg(long)]
    quick: bool,
    /// Measure these parts only.
    #[arg(long, value_delimiter = ',', value_name = "PART")]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Wall time and CPU of one container, and of the first of its module
    Starts,
    /// Containers per second, eight at a time
    Burst,
    /// What an idle container and its shim take
    Memory,
    /// Requests per second, and how long they take
    Http,
    /// Starts beside 1, 10, 50 and 100 containers
    Neighbours,
}

/// How often things are measured.
struct Effort {
    starts: usize,
    first_starts: usize,
    bursts: usize,
    http_rounds: usize,
    http_seconds: u32,
    starts_beside_neighbours: usize,
}

const FULL: Effort =
    Effort { starts: 40, first_starts: 5, bursts: 3, http_rounds: 3, http_seconds: 5, starts_beside_neighbours: 20 };
const QUICK: Effort =
    Effort { starts: 10, first_starts: 1, bursts: 1, http_rounds: 1, http_seconds: 2, starts_beside_neighbours: 5 };

fn main() -> Result<()> {
    let Arguments { quick, only } = Arguments::parse();
    if machine::user_id()? != 0 {
        bail!("containers take root");
    }
    interruption::watch()?;
    let effort = if quick { QUICK } else { FULL };
    let parts = if only.is_empty() { Part::value_variants() } else { &only };

    let machine = machine::describe()?;
    let mut measurements = Vec::new();
    for part in parts {
        measurements.extend(measure(*part, &effort)?);
    }
    let report = Report { machine, measurements };
    print!("{report}");
    write(&report)
}

fn measure(part: Part, effort: &Effort) -> Result<Vec<Measurement>> {
    match part {
        Part::Starts => {
            let mut measurements = starts::one_by_one(effort.starts)?;
            measurements.push(starts::first_of_a_module(effort.first_starts)?);
            Ok(measurements)
        }
        Part::Burst => Ok(vec![starts::burst(effort.bursts)?]),
        Part::Memory => Ok(vec![memory::of_idle_containers()?]),
        Part::Http => http::requests(effort.http_rounds, effort.http_seconds),
        Part::Neighbours => Ok(vec![starts::beside_neighbours(effort.starts_beside_neighbours)?]),
    }
}

fn write(report: &Report) -> Result<()> {
    let folder = target_folder().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (text, image) = (folder.join("e2e.txt"), folder.join("e2e.svg"));
    fs::write(&text, report.to_string()).with_context(|| format!("cannot write {}", text.display()))?;
    fs::write(&image, Picture(report).to_string()).with_context(|| format!("cannot write {}", image.display()))?;
    eprintln!("The table is in {}, the picture in {}.", text.display(), image.display());
    Ok(())
}
