//! The conformance suite: runs the same programs on every engine and checks that they do the same, the right thing.

#![forbid(unsafe_code)]

mod cases;
mod dapr;
mod guest;
mod report;
mod runner;
mod store;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::Parser;
use clap::builder::PossibleValuesParser;

use guest::EngineUnderTest;
use report::{Format, Report};
use runner::Case;

const ALL: &str = "all";

/// Runs the same programs on every engine and checks that they do the same, the right thing.
#[derive(Parser)]
#[command(name = "conformance", version)]
struct Arguments {
    /// The engine to test
    #[arg(long, default_value = ALL, value_parser = engine_names())]
    engine: String,
    /// Only the cases whose name has this text in it
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Print the names of the cases and run none
    #[arg(long)]
    list: bool,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn engine_names() -> PossibleValuesParser {
    let names = engines::built_in().into_iter().map(|engine| engine.name());
    PossibleValuesParser::new(std::iter::once(ALL).chain(names))
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is well.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let Arguments { engine, filter, list, format } = arguments;
    let cases = select(filter.as_deref())?;
    let mut out = io::stdout().lock();
    if *list {
        cases.iter().try_for_each(|case| writeln!(out, "{}", case.full_name()))?;
        return Ok(true);
    }
    cases.iter().try_for_each(|case| case.program.check_is_there())?;
    let engines = engines::built_in().into_iter().filter(|known| engine == ALL || engine == known.name());
    let engines: Vec<_> = engines.map(EngineUnderTest::new).map(Arc::new).collect();
    let names: Vec<_> = engines.iter().map(|engine| engine.name()).collect();
    let mut report = Report::begin(*format, out, &cases, &names)?;
    for case in &cases {
        report.add(case, case.run(&engines, cases::EXPECTED_FAILURES))?;
    }
    Ok(report.end()?.failed == 0)
}

/// # Errors
/// There is none: a suite that runs nothing proves nothing.
fn select(filter: Option<&str>) -> anyhow::Result<Vec<Case>> {
    let filter = filter.unwrap_or_default();
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.full_name().contains(filter)).collect();
    ensure!(!cases.is_empty(), "no case has {filter:?} in its name; --list prints all names");
    Ok(cases)
}
