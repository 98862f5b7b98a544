//! The figures as bars, with a mark where each goal is.

use std::fmt::{self, Display};

use crate::report::{Line, Measurement, Report};

const WIDTH: i32 = 960;
const MARGIN: i32 = 16;
const TITLE: i32 = 30;
const BAR: i32 = 20;
const GAP: i32 = 4;
/// Where bars begin, and where the longest ends.
const BARS: (i32, i32) = (300, 860);
const BASELINE: &str = "#969696";
const ENGINES: [&str; 2] = ["#654ff0", "#1ea08c"];

/// A report as SVG.
pub(crate) struct Picture<'a>(pub(crate) &'a Report);

impl Display for Picture<'_> {
    fn fmt(&self, svg: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let bottom = MARGIN + TITLE + report.measurements.iter().map(height).sum::<i32>();
        let size = format!(r#"width="{WIDTH}" height="{}""#, bottom + TITLE);
        writeln!(svg, r#"<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">"#)?;
        writeln!(svg, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
        text(svg, &report.machine, (MARGIN, MARGIN + TITLE / 2), r#"font-size="11""#)?;
        let mut top = MARGIN + TITLE;
        for measurement in &report.measurements {
            write_measurement(svg, measurement, top)?;
            top += height(measurement);
        }
        text(svg, "A black mark is a goal.", (MARGIN, bottom), r#"font-size="11""#)?;
        writeln!(svg, "</svg>")
    }
}

fn height(measurement: &Measurement) -> i32 {
    TITLE + measurement.lines.iter().map(height_of_line).sum::<i32>() + MARGIN
}

fn height_of_line(line: &Line) -> i32 {
    line.values.iter().map(|_| BAR).sum::<i32>() + GAP
}

fn write_measurement(svg: &mut fmt::Formatter<'_>, measurement: &Measurement, top: i32) -> fmt::Result {
    text(svg, &measurement.title.replace('`', ""), (MARGIN, top + TITLE / 2), r#"font-size="15""#)?;
    let longest = measurement.lines.iter().flat_map(numbers).fold(0.0, f64::max);
    let mut top = top + TITLE;
    for line in &measurement.lines {
        text(svg, &line.label, (MARGIN, top + BAR / 2), "")?;
        let colours = [BASELINE].into_iter().chain(ENGINES.into_iter().cycle());
        let tops = (top..).step_by(BAR.unsigned_abs() as usize);
        for ((index, value), (colour, top)) in line.values.iter().enumerate().zip(colours.zip(tops)) {
            let end = position(value.number, longest);
            let goal = limit(line, index).map(|limit| position(limit, longest));
            write_bar(svg, (top, end), colour, [value.name, &measurement.unit.text(value.number)], goal)?;
        }
        top += height_of_line(line);
    }
    Ok(())
}

/// A bar with a name before it and a value behind it.
fn write_bar(
    svg: &mut fmt::Formatter<'_>,
    (top, end): (i32, i32),
    colour: &str,
    [name, value]: [&str; 2],
    goal: Option<i32>,
) -> fmt::Result {
    let (begin, middle) = (BARS.0, top + BAR / 2);
    text(svg, name, (begin - 8, middle), r#"text-anchor="end""#)?;
    let size = format!(r#"width="{}" height="{}""#, end - begin, BAR - GAP);
    writeln!(svg, r#"<rect x="{begin}" y="{}" {size} fill="{colour}"/>"#, top + GAP / 2)?;
    if let Some(goal) = goal {
        writeln!(svg, r#"<rect x="{}" y="{top}" width="2" height="{BAR}"/>"#, goal - 1)?;
    }
    text(svg, value, (end.max(goal.unwrap_or(end)) + 8, middle), "")
}

/// Around the middle of its height.
fn text(svg: &mut fmt::Formatter<'_>, text: &str, (x, middle): (i32, i32), attributes: &str) -> fmt::Result {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    writeln!(svg, r#"<text x="{x}" y="{}" {attributes}>{text}</text>"#, middle + 4)
}

/// What has to have its place.
fn numbers(line: &Line) -> impl Iterator<Item = f64> {
    let limits = (0..line.values.len()).filter_map(|index| limit(line, index));
    line.values.iter().map(|value| value.number).chain(limits)
}

/// The goal of a value that is not the one compared with.
fn limit(line: &Line, index: usize) -> Option<f64> {
    let baseline = line.values[0].number;
    if index == 0 { None } else { line.goal(line.values[index].name).map(|goal| goal.limit(baseline)) }
}

fn position(number: f64, longest: f64) -> i32 {
    BARS.0 + (f64::from(BARS.1 - BARS.0) * number / longest) as i32
}
