//! What was measured, what it should have been, and the table of both.

use std::fmt::{self, Display};

/// A run's results.
pub(crate) struct Report {
    /// What the figures depend on.
    pub(crate) machine: String,
    pub(crate) measurements: Vec<Measurement>,
}

/// One thing that was measured, in one case or in several.
pub(crate) struct Measurement {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) lines: Vec<Line>,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Milliseconds,
    PerSecond,
    /// Of 10⁶ bytes.
    Megabytes,
}

/// One case, of everything that is compared.
pub(crate) struct Line {
    /// Empty where there is one case only.
    pub(crate) label: String,
    /// What the others are compared with comes first.
    pub(crate) values: Vec<Value>,
    pub(crate) goals: Vec<Goal>,
}

pub(crate) struct Value {
    pub(crate) name: &'static str,
    pub(crate) number: f64,
}

/// What an engine's value should be.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    bound: f64,
    at_most: bool,
    of_baseline: bool,
    /// Which engine; without it, each.
    engine: Option<&'static str>,
}

impl Line {
    pub(crate) fn new(label: &str, values: Vec<Value>, goals: Vec<Goal>) -> Self {
        Self { label: label.to_owned(), values, goals }
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|value| value.name == name).map(|value| value.number)
    }

    pub(crate) fn goal(&self, engine: &str) -> Option<Goal> {
        self.goals.iter().copied().find(|goal| goal.engine.is_none_or(|name| name == engine))
    }
}

impl Goal {
    pub(crate) fn at_most(bound: f64) -> Self {
        Self { bound, at_most: true, of_baseline: false, engine: None }
    }

    pub(crate) fn at_least(bound: f64) -> Self {
        Self { at_most: false, ..Self::at_most(bound) }
    }

    /// The bound is a multiple of what is compared with.
    pub(crate) fn of_baseline(self) -> Self {
        Self { of_baseline: true, ..self }
    }

    pub(crate) fn on(self, engine: &'static str) -> Self {
        Self { engine: Some(engine), ..self }
    }

    /// The value that is just good enough.
    pub(crate) fn limit(self, baseline: f64) -> f64 {
        if self.of_baseline { self.bound * baseline } else { self.bound }
    }

    fn is_met(self, value: f64, baseline: f64) -> bool {
        let limit = self.limit(baseline);
        if self.at_most { value <= limit } else { value >= limit }
    }

    fn text(self, unit: Unit, baseline: &str) -> String {
        let relation = if self.at_most { "≤" } else { "≥" };
        let bound = if self.of_baseline { format!("{:.2} × {baseline}", self.bound) } else { unit.text(self.bound) };
        let engine = self.engine.map(|engine| format!("{engine} ")).unwrap_or_default();
        format!("{engine}{relation} {bound}")
    }
}

impl Unit {
    pub(crate) fn text(self, number: f64) -> String {
        let unit = match self {
            Self::Milliseconds => " ms",
            Self::PerSecond if number >= 1000.0 => return format!("{:.1} k/s", number / 1000.0),
            Self::PerSecond => "/s",
            Self::Megabytes => " MB",
        };
        if number < 100.0 { format!("{number:.1}{unit}") } else { format!("{number:.0}{unit}") }
    }
}

/// The middle one, or the mean of the two in the middle.
///
/// # Panics
///
/// Without values.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

impl Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engines: Vec<&str> = engines::built_in().iter().map(|engine| engine.name()).collect();
        let mut rows = vec![header(&engines)];
        for measurement in &self.measurements {
            if measurement.lines.len() > 1 {
                rows.push(vec![measurement.title.clone()]);
            }
            rows.extend(measurement.lines.iter().map(|line| row(measurement, line, &engines)));
        }
        writeln!(formatter, "{}\n", self.machine)?;
        write_columns(formatter, &rows)
    }
}

fn header(engines: &[&str]) -> Vec<String> {
    let titles = ["", "compared with"].iter().chain(engines).chain(&["goal"]);
    titles.map(|title| (*title).to_owned()).collect()
}

fn row(measurement: &Measurement, line: &Line, engines: &[&str]) -> Vec<String> {
    let baseline = &line.values[0];
    let label = if line.label.is_empty() { measurement.title.clone() } else { format!("  {}", line.label) };
    let mut row = vec![label, format!("{} {}", baseline.name, measurement.unit.text(baseline.number))];
    row.extend(engines.iter().map(|engine| cell(measurement.unit, line, engine)));
    let goals: Vec<String> = line.goals.iter().map(|goal| goal.text(measurement.unit, baseline.name)).collect();
    row.push(goals.join(", "));
    row
}

/// An engine's value, what multiple of the baseline's it is, and what is to be said of it.
fn cell(unit: Unit, line: &Line, engine: &str) -> String {
    let Some(value) = line.value(engine) else { return String::new() };
    let baseline = line.values[0].number;
    let verdict = match line.goal(engine) {
        None => "",
        Some(goal) if goal.is_met(value, baseline) => ", met",
        Some(_) => ", missed",
    };
    format!("{} ({:.2} ×){verdict}", unit.text(value), value / baseline)
}

/// A row of one cell is a heading, whose length widens no column.
fn write_columns(formatter: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| row.len() > 1).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(formatter, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
