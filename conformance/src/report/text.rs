//! For people: a table, then the failures.

use std::io::{self, Write};

use super::{CaseReport, Totals};
use crate::runner::Outcome;

/// Between columns.
const GAP: &str = "  ";

pub(super) fn header(out: &mut impl Write, width: usize, engines: &[&str]) -> io::Result<()> {
    line(out, width, "case", engines.iter().map(|engine| (*engine, (*engine).to_owned())))
}

pub(super) fn row(out: &mut impl Write, width: usize, report: &CaseReport<'_>) -> io::Result<()> {
    let cells = report.runs.iter().map(|run| (run.engine, cell(&run.outcome)));
    line(out, width, &report.case.full_name(), cells)
}

fn cell(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Passed => "ok".to_owned(),
        Outcome::Failed(_) => "FAIL".to_owned(),
        Outcome::ExpectedFailure(reason) => format!("expected failure: {reason}"),
        Outcome::Skipped(reason) => format!("skip: {reason}"),
    }
}

/// Cells are at least as wide as the name of their engine.
fn line<'a>(
    out: &mut impl Write,
    width: usize,
    name: &str,
    cells: impl Iterator<Item = (&'a str, String)>,
) -> io::Result<()> {
    let mut line = format!("{name:width$}");
    for (engine, cell) in cells {
        line += &format!("{GAP}{cell:0$}", engine.len());
    }
    writeln!(out, "{}", line.trim_end())
}

pub(super) fn end(out: &mut impl Write, cases: &[CaseReport<'_>], totals: Totals) -> io::Result<()> {
    for report in cases {
        for run in &report.runs {
            if let Outcome::Failed(reason) = &run.outcome {
                writeln!(out, "\nFAIL {} on {}", report.case.full_name(), run.engine)?;
                reason.lines().try_for_each(|line| writeln!(out, "    {line}"))?;
            }
        }
    }
    let Totals { passed, failed, skipped } = totals;
    writeln!(out, "\n{passed} passed, {failed} failed, {skipped} skipped")
}
