//! What the stores in SQL databases have in common: durations in their metadata.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::properties::{InvalidProperty, Properties};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
/// What an integer without a unit counts.
pub(super) const BARE_UNIT: Duration = Duration::from_secs(1);
/// Dapr's: a little less than the interval, lest every second turn is skipped.
const CLEANUP_SLACK: Duration = Duration::from_millis(100);

/// How long a call may take.
pub(super) fn timeout(properties: &Properties) -> Result<Duration, InvalidProperty> {
    let timeout = either(properties, "timeout", "timeoutInSeconds")?;
    let timeout = timeout.map_or(Some(DEFAULT_TIMEOUT), GoDuration::positive);
    timeout
        .filter(|&timeout| timeout >= SHORTEST_TIMEOUT)
        .ok_or(InvalidProperty::Malformed { name: "timeout", expected: "at least 1s" })
}

pub(super) fn cleanup_interval(properties: &Properties) -> Result<Option<GoDuration>, InvalidProperty> {
    either(properties, "cleanupInterval", "cleanupIntervalInSeconds")
}

/// How many milliseconds ago the last cleanup has to be for another one, by whichever process.
pub(super) fn cleanup_age(interval: Duration) -> i64 {
    i64::try_from(interval.saturating_sub(CLEANUP_SLACK).as_millis()).unwrap_or(i64::MAX)
}

fn either(
    properties: &Properties,
    name: &'static str,
    alias: &'static str,
) -> Result<Option<GoDuration>, InvalidProperty> {
    Ok(properties.duration(name, BARE_UNIT)?.or(properties.duration(alias, BARE_UNIT)?))
}
