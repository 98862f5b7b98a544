//! For programs: one object with the totals and every run.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{CaseReport, Totals};
use crate::runner::{Outcome, Run};

pub(super) fn write(out: &mut impl Write, cases: &[CaseReport<'_>], totals: Totals) -> io::Result<()> {
    let runs = cases.iter().flat_map(|report| report.runs.iter().map(|run| entry(report, run)));
    let Totals { passed, failed, skipped } = totals;
    let report = json!({
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "runs": runs.collect::<Vec<_>>(),
    });
    writeln!(out, "{report:#}")
}

fn entry(report: &CaseReport<'_>, run: &Run) -> Value {
    let (outcome, reason) = match &run.outcome {
        Outcome::Passed => ("passed", None),
        Outcome::Failed(reason) => ("failed", Some(reason)),
        Outcome::ExpectedFailure(reason) => ("expected failure", Some(reason)),
        Outcome::Skipped(reason) => ("skipped", Some(reason)),
    };
    json!({
        "case": report.case.full_name(),
        "engine": run.engine,
        "outcome": outcome,
        "reason": reason,
        "seconds": run.duration.as_secs_f64(),
    })
}
