//! JUnit's XML: a suite for each engine.
//!
//! Source: <https://github.com/testmoapp/junitxml>, the parts that every reader takes.

use std::io::{self, Write};
use std::time::Duration;

use super::{CaseReport, Totals};
use crate::runner::{Case, Outcome, Run};

pub(super) fn write(out: &mut impl Write, cases: &[CaseReport<'_>]) -> io::Result<()> {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    writeln!(out, "<testsuites>")?;
    let engines = cases.first().map_or(0, |report| report.runs.len());
    for engine in 0..engines {
        let runs: Vec<_> = cases.iter().map(|report| (report.case, &report.runs[engine])).collect();
        suite(out, &runs)?;
    }
    writeln!(out, "</testsuites>")
}

fn suite(out: &mut impl Write, runs: &[(&Case, &Run)]) -> io::Result<()> {
    let Totals { passed: _, failed, skipped } = Totals::of(runs.iter().map(|(_, run)| *run));
    let time: Duration = runs.iter().map(|(_, run)| run.duration).sum();
    let name = runs.first().map_or("", |(_, run)| run.engine);
    writeln!(
        out,
        r#"  <testsuite name="{}" tests="{}" failures="{failed}" skipped="{skipped}" time="{:.3}">"#,
        escaped(name),
        runs.len(),
        time.as_secs_f64()
    )?;
    runs.iter().try_for_each(|(case, run)| test_case(out, case, run))?;
    writeln!(out, "  </testsuite>")
}

fn test_case(out: &mut impl Write, case: &Case, run: &Run) -> io::Result<()> {
    let class = escaped(&format!("{}.{}", run.engine, case.group.replace("::", ".")));
    let (name, time) = (escaped(&case.name), run.duration.as_secs_f64());
    write!(out, r#"    <testcase classname="{class}" name="{name}" time="{time:.3}""#)?;
    let child = match &run.outcome {
        Outcome::Passed => return writeln!(out, "/>"),
        Outcome::Failed(reason) => {
            let message = escaped(reason.lines().next().unwrap_or_default());
            format!(r#"<failure message="{message}">{}</failure>"#, escaped(reason))
        }
        Outcome::ExpectedFailure(reason) => {
            format!(r#"<skipped message="{}"/>"#, escaped(&format!("expected failure: {reason}")))
        }
        Outcome::Skipped(reason) => format!(r#"<skipped message="{}"/>"#, escaped(reason)),
    };
    writeln!(out, ">\n      {child}\n    </testcase>")
}

/// XML has no way to write most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            _ => escaped.push(character),
        }
    }
    escaped
}
