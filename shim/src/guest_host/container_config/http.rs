//! What annotations say about how requests are served.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail};
use components::duration::GoDuration;

use super::{annotation, annotation_or_file};
use crate::guest_host::trigger::http::{HttpOptions, Instances};
use crate::quantity;

/// Each instance has some thousand pages of the system's table of mappings.
const CONCURRENCY: RangeInclusive<u32> = 1..=4096;
const QUEUE: RangeInclusive<u32> = 0..=1_000_000;
const BODY: RangeInclusive<usize> = 0..=1 << 30;
const HEADER: RangeInclusive<usize> = 1 << 10..=256 << 10;
/// What has no end in practice.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The options of a container; `instances` is what its `/config.yaml` says.
///
/// # Errors
/// A value is not what is allowed, which the message names.
pub(super) fn http_options(
    annotations: &HashMap<String, String>,
    instances: Option<&str>,
) -> anyhow::Result<HttpOptions> {
    let defaults = HttpOptions::default();
    let text = |name| annotation(annotations, name);
    let (source, instances) = annotation_or_file(annotations, "instances", instances);
    Ok(HttpOptions {
        instances: match instances {
            None => defaults.instances,
            Some("fresh") => Instances::Fresh,
            Some("reuse") => Instances::Reuse,
            Some(other) => bail!("{source} is {other:?}, not fresh or reuse"),
        },
        max_concurrency: number("max-concurrency", text("max-concurrency"), CONCURRENCY, defaults.max_concurrency)?,
        max_queue: number("max-queue", text("max-queue"), QUEUE, defaults.max_queue)?,
        max_body_size: size("max-body-size", text("max-body-size"), BODY, defaults.max_body_size)?,
        max_buffered: defaults.max_buffered,
        max_header_size: size("max-header-size", text("max-header-size"), HEADER, defaults.max_header_size)?,
        request_timeout: time("request-timeout", text("request-timeout"), defaults.request_timeout)?,
        idle_timeout: time("idle-timeout", text("idle-timeout"), defaults.idle_timeout)?,
    })
}

fn number(name: &str, text: Option<&str>, allowed: RangeInclusive<u32>, default: u32) -> anyhow::Result<u32> {
    let Some(text) = text else { return Ok(default) };
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.with_context(|| refused(name, text, format_args!("a number from {} to {}", allowed.start(), allowed.end())))
}

fn size(name: &str, text: Option<&str>, allowed: RangeInclusive<usize>, default: usize) -> anyhow::Result<usize> {
    let Some(text) = text else { return Ok(default) };
    let bytes = quantity::parse(text).and_then(|bytes| usize::try_from(bytes).ok());
    let bytes = bytes.filter(|bytes| allowed.contains(bytes));
    bytes.with_context(|| {
        let (least, most) = (allowed.start(), allowed.end());
        refused(name, text, format_args!("{}, {least} to {most} bytes", quantity::EXPECTED))
    })
}

fn time(name: &str, text: Option<&str>, default: Duration) -> anyhow::Result<Duration> {
    let Some(text) = text else { return Ok(default) };
    let time = GoDuration::parse(text, Duration::from_secs(1)).and_then(GoDuration::positive);
    let time = time.filter(|time| *time <= LONGEST);
    time.with_context(|| refused(name, text, "a time above zero such as 500ms, 30s or 5m, at most 24h"))
}

fn refused(name: &str, text: &str, allowed: impl Display) -> String {
    format!("annotation dapr.wasm/{name} is {text:?}, not {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(annotations: &[(&str, &str)]) -> anyhow::Result<HttpOptions> {
        let annotations = annotations.iter().map(|(name, value)| (format!("dapr.wasm/{name}"), value.to_string()));
        http_options(&annotations.collect(), None)
    }

    #[test]
    fn a_container_that_says_nothing_has_the_defaults() {
        assert_eq!(options(&[]).unwrap(), HttpOptions::default());
    }

    #[test]
    fn each_annotation_sets_its_limit() {
        let options = options(&[
            ("instances", "reuse"),
            ("max-concurrency", "1"),
            ("max-queue", "0"),
            ("max-body-size", "2Mi"),
            ("max-header-size", "8Ki"),
            ("request-timeout", "1.5s"),
            ("idle-timeout", "90"),
        ]);
        let expected = HttpOptions {
            instances: Instances::Reuse,
            max_concurrency: 1,
            max_queue: 0,
            max_body_size: 2 << 20,
            max_buffered: HttpOptions::default().max_buffered,
            max_header_size: 8 << 10,
            request_timeout: Duration::from_millis(1500),
            idle_timeout: Duration::from_secs(90),
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn sizes_have_the_units_of_kubernetes() {
        for (text, expected) in [("0", 0), ("1000", 1000), ("1Ki", 1024), ("1Mi", 1 << 20), ("1Gi", 1 << 30)] {
            assert_eq!(options(&[("max-body-size", text)]).unwrap().max_body_size, expected, "{text}");
        }
    }

    #[test]
    fn an_annotation_wins_over_the_images_file() {
        let annotations = HashMap::from([("dapr.wasm/instances".to_owned(), "fresh".to_owned())]);
        assert_eq!(http_options(&annotations, Some("reuse")).unwrap().instances, Instances::Fresh);
        assert_eq!(http_options(&HashMap::new(), Some("reuse")).unwrap().instances, Instances::Reuse);
    }

    #[test]
    fn a_value_that_is_not_allowed_is_told_what_is() {
        let refused = [
            ("instances", "once", "fresh or reuse"),
            ("max-concurrency", "0", "1 to 4096"),
            ("max-concurrency", "5000", "1 to 4096"),
            ("max-queue", "-1", "0 to 1000000"),
            ("max-body-size", "1 MB", "16Mi"),
            ("max-body-size", "99999999999Gi", "16Mi"),
            ("max-body-size", "2Gi", "1073741824 bytes"),
            ("max-header-size", "1", "1024 to 262144 bytes"),
            ("request-timeout", "0s", "above zero"),
            ("request-timeout", "-1s", "above zero"),
            ("request-timeout", "25h", "at most 24h"),
            ("idle-timeout", "soon", "500ms, 30s or 5m"),
        ];
        for (name, value, allowed) in refused {
            let error = options(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value) && error.contains(allowed), "{error}");
        }
    }
}
