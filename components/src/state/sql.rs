//! What the stores in SQL databases have in common: durations in their metadata.

use std::time::Duration;

use crate::duration::GoDuration;
use crate::field::Field;
use crate::properties::{InvalidProperty, Properties};

const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);
/// Dapr's: a little less than the interval, lest every second turn is skipped.
const CLEANUP_SLACK: Duration = Duration::from_millis(100);

pub(super) const TIMEOUT: Field =
    Field::seconds("timeout", "how long a call may take, at least a second").also(&["timeoutInSeconds"]).or("20s");
/// Its default is each store's own.
pub(super) const CLEANUP_INTERVAL: Field =
    Field::seconds("cleanupInterval", "how often rows that expired are removed; zero and below: never")
        .also(&["cleanupIntervalInSeconds"]);

/// How long a call may take.
pub(super) fn timeout(properties: &Properties) -> Result<Duration, InvalidProperty> {
    let timeout = properties.duration(&TIMEOUT)?.and_then(GoDuration::positive);
    timeout
        .filter(|&timeout| timeout >= SHORTEST_TIMEOUT)
        .ok_or(InvalidProperty::Malformed { name: TIMEOUT.name, expected: "at least 1s" })
}

/// How many milliseconds ago the last cleanup has to be for another one, by whichever process.
pub(super) fn cleanup_age(interval: Duration) -> i64 {
    i64::try_from(interval.saturating_sub(CLEANUP_SLACK).as_millis()).unwrap_or(i64::MAX)
}
