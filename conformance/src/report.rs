//! What the cases came to, for people and for programs.

mod json;
mod junit;
mod text;

use std::io::{self, Write};

use clap::ValueEnum;

use crate::runner::{Case, Outcome, Run};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table, each line as its case ends, then the failures
    #[default]
    Text,
    /// One object
    Json,
    /// XML, as continuous integration reads it
    Junit,
}

/// A case with its runs, one for each engine, always in the same order.
pub(crate) struct CaseReport<'a> {
    pub(crate) case: &'a Case,
    pub(crate) runs: Vec<Run>,
}

/// Writes a report while the cases run.
pub(crate) struct Report<'a, W> {
    format: Format,
    out: W,
    /// Of the column of names.
    width: usize,
    cases: Vec<CaseReport<'a>>,
}

impl<'a, W: Write> Report<'a, W> {
    pub(crate) fn begin(format: Format, mut out: W, cases: &[Case], engines: &[&str]) -> io::Result<Self> {
        let width = cases.iter().map(|case| case.full_name().len()).max().unwrap_or_default();
        if format == Format::Text {
            text::header(&mut out, width, engines)?;
        }
        Ok(Self { format, out, width, cases: Vec::new() })
    }

    pub(crate) fn add(&mut self, case: &'a Case, runs: Vec<Run>) -> io::Result<()> {
        let case = CaseReport { case, runs };
        if self.format == Format::Text {
            text::row(&mut self.out, self.width, &case)?;
        }
        self.cases.push(case);
        Ok(())
    }

    /// Completes the report and answers what it says in total.
    pub(crate) fn end(mut self) -> io::Result<Totals> {
        let totals = Totals::of(self.cases.iter().flat_map(|case| &case.runs));
        match self.format {
            Format::Text => text::end(&mut self.out, &self.cases, totals)?,
            Format::Json => json::write(&mut self.out, &self.cases, totals)?,
            Format::Junit => junit::write(&mut self.out, &self.cases)?,
        }
        self.out.flush()?;
        Ok(totals)
    }
}

/// How many runs came to what. An expected failure counts as skipped, as in JUnit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Totals {
    fn of<'a>(runs: impl IntoIterator<Item = &'a Run>) -> Self {
        let mut totals = Self::default();
        for run in runs {
            match run.outcome {
                Outcome::Passed => totals.passed += 1,
                Outcome::Failed(_) => totals.failed += 1,
                Outcome::ExpectedFailure(_) | Outcome::Skipped(_) => totals.skipped += 1,
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guest::Program;

    /// What a report in this format says of four runs of two cases.
    fn report(format: Format) -> String {
        let case = |name: &str| Case::new("group", name, Program::Rust("hello"), async |_| Ok(()));
        let cases = [case("one"), case("another")];
        let run = |engine, outcome| Run::new(engine, outcome, Duration::from_millis(1500));
        let mut out = Vec::new();
        let mut report = Report::begin(format, &mut out, &cases, &["quick", "slow"]).unwrap();
        let failed = Outcome::Failed("1 < 2 & \"so\" on\nin \u{1b}two lines".to_owned());
        report.add(&cases[0], vec![run("quick", Outcome::Passed), run("slow", failed)]).unwrap();
        let (expected, skipped) =
            (Outcome::ExpectedFailure("not yet".to_owned()), Outcome::Skipped("nothing there".to_owned()));
        report.add(&cases[1], vec![run("quick", expected), run("slow", skipped)]).unwrap();
        assert_eq!(report.end().unwrap(), Totals { passed: 1, failed: 1, skipped: 2 });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_case_and_ends_with_the_totals() {
        assert_eq!(
            report(Format::Text),
            "case            quick  slow\n\
             group::one      ok     FAIL\n\
             group::another  expected failure: not yet  skip: nothing there\n\
             \n\
             FAIL group::one on slow\n\
             \x20   1 < 2 & \"so\" on\n\
             \x20   in \u{1b}two lines\n\
             \n\
             1 passed, 1 failed, 2 skipped\n"
        );
    }

    #[test]
    fn json_has_every_run_with_its_reason() {
        let report: serde_json::Value = serde_json::from_str(&report(Format::Json)).unwrap();
        assert_eq!(report["passed"], 1);
        assert_eq!(report["failed"], 1);
        assert_eq!(report["skipped"], 2);
        let runs = report["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 4);
        assert_eq!(
            runs[2],
            serde_json::json!({
                "case": "group::another", "engine": "quick", "outcome": "expected failure", "reason": "not yet",
                "seconds": 1.5
            })
        );
        assert_eq!(runs[0]["reason"], serde_json::Value::Null);
    }

    #[test]
    fn junit_is_well_formed_and_has_a_suite_for_each_engine() {
        assert_eq!(
            report(Format::Junit),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="quick" tests="2" failures="0" skipped="1" time="3.000">
    <testcase classname="quick.group" name="one" time="1.500"/>
    <testcase classname="quick.group" name="another" time="1.500">
      <skipped message="expected failure: not yet"/>
    </testcase>
  </testsuite>
  <testsuite name="slow" tests="2" failures="1" skipped="1" time="3.000">
    <testcase classname="slow.group" name="one" time="1.500">
      <failure message="1 &lt; 2 &amp; &quot;so&quot; on">1 &lt; 2 &amp; &quot;so&quot; on
in "#
                .to_owned()
                + "\u{fffd}two lines</failure>\n"
                + r#"    </testcase>
    <testcase classname="slow.group" name="another" time="1.500">
      <skipped message="nothing there"/>
    </testcase>
  </testsuite>
</testsuites>
"#
        );
    }
}
