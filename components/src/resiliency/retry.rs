//! How often, and how long after a failure, a call is tried again.
//!
//! Source: dapr/kit `retry/retry.go`, whose exponential pauses are those of cenkalti/backoff v4.

use std::time::Duration;

use super::{InvalidPolicy, document, optional_duration};
use crate::duration::GoDuration;

const DEFAULT_DURATION: Duration = Duration::from_secs(5);
const FIRST_INTERVAL: Duration = Duration::from_millis(500);
const MULTIPLIER: f64 = 1.5;
/// A pause is its interval and up to so much of it more or less.
const RANDOMIZATION: f64 = 0.5;
const DEFAULT_MAX_INTERVAL: Duration = Duration::from_secs(60);
/// No pause of an exponential policy ends later than so long after the first attempt. Dapr's document has no field
/// for it.
const MAX_ELAPSED: Duration = Duration::from_secs(15 * 60);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    pauses: Pauses,
    /// None is for ever.
    max_retries: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pauses {
    Constant(Duration),
    Exponential { max_interval: Duration },
}

impl Default for Retry {
    fn default() -> Self {
        Self { pauses: Pauses::Constant(DEFAULT_DURATION), max_retries: None }
    }
}

impl Retry {
    pub(super) fn new(written: &document::Retry) -> Result<Self, InvalidPolicy> {
        let or_zero = |duration: GoDuration| duration.positive().unwrap_or_default();
        let duration = optional_duration("duration", &written.duration)?.map_or(DEFAULT_DURATION, or_zero);
        let max_interval = optional_duration("maxInterval", &written.max_interval)?;
        let max_interval = max_interval.map_or(DEFAULT_MAX_INTERVAL, or_zero);
        let pauses = match written.policy.expose().to_ascii_lowercase().as_str() {
            "" | "constant" => Pauses::Constant(duration),
            "exponential" => Pauses::Exponential { max_interval },
            _ => return Err(InvalidPolicy::Backoff),
        };
        // Below zero, -1 in Dapr's documentation, is for ever.
        let max_retries = written.max_retries.and_then(|retries| u64::try_from(retries).ok());
        Ok(Self { pauses, max_retries })
    }

    pub(super) fn backoff(&self) -> Backoff {
        Backoff { pauses: self.pauses.clone(), interval: FIRST_INTERVAL, left: self.max_retries }
    }
}

/// The pauses of one call.
pub(super) struct Backoff {
    pauses: Pauses,
    interval: Duration,
    left: Option<u64>,
}

impl Backoff {
    /// The pause before the next attempt, if there is one. `elapsed` is the time since the first; `chance` is in
    /// `0.0..1.0`.
    pub(super) fn next(&mut self, elapsed: Duration, chance: f64) -> Option<Duration> {
        self.left = match self.left {
            Some(left) => Some(left.checked_sub(1)?),
            None => None,
        };
        match self.pauses {
            Pauses::Constant(duration) => Some(duration),
            Pauses::Exponential { max_interval } => {
                let pause = self.interval.mul_f64(1.0 + RANDOMIZATION * (2.0 * chance - 1.0));
                // Only now: as in Dapr, the first interval knows no maximum.
                self.interval = self.interval.mul_f64(MULTIPLIER).min(max_interval);
                (elapsed + pause <= MAX_ELAPSED).then_some(pause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: f64 = 0.5;

    fn retry(yaml: &str) -> Result<Retry, InvalidPolicy> {
        Retry::new(&serde_yaml::from_str(yaml).unwrap())
    }

    /// In milliseconds, without the chance in them.
    fn pauses(yaml: &str, count: usize) -> Vec<u128> {
        let mut backoff = retry(yaml).unwrap().backoff();
        let pauses = std::iter::from_fn(|| backoff.next(Duration::ZERO, MIDDLE));
        pauses.take(count).map(|pause| pause.as_millis()).collect()
    }

    #[test]
    fn without_a_word_a_call_is_tried_again_every_five_seconds_for_ever() {
        assert_eq!(pauses("{}", 4), [5000; 4]);
        assert_eq!(pauses("{policy: '', duration: '', maxRetries: -1}", 4), [5000; 4]);
        assert_eq!(retry("{}"), Ok(Retry::default()));
    }

    #[test]
    fn retries_are_counted() {
        assert_eq!(pauses("{policy: constant, duration: 20, maxRetries: 3}", 9), [20; 3]);
        assert_eq!(pauses("{policy: Exponential, maxRetries: 2}", 9), [500, 750]);
        assert!(pauses("{maxRetries: 0}", 9).is_empty());
    }

    #[test]
    fn exponential_pauses_grow_by_half_up_to_the_maximum() {
        assert_eq!(pauses("{policy: exponential, maxInterval: 1500ms}", 6), [500, 750, 1125, 1500, 1500, 1500]);
        assert_eq!(pauses("{policy: exponential, maxInterval: 100ms}", 3), [500, 100, 100]);
    }

    #[test]
    fn an_exponential_pause_is_half_as_long_to_half_as_long_again() {
        let retry = retry("{policy: exponential}").unwrap();
        assert_eq!(retry.backoff().next(Duration::ZERO, 0.0), Some(Duration::from_millis(250)));
        assert_eq!(retry.backoff().next(Duration::ZERO, 1.0), Some(Duration::from_millis(750)));
    }

    #[test]
    fn exponential_pauses_end_after_a_quarter_of_an_hour_and_constant_ones_do_not() {
        let (late, pause) = (MAX_ELAPSED - FIRST_INTERVAL, Some(FIRST_INTERVAL));
        let exponential = retry("{policy: exponential, maxRetries: -1}").unwrap();
        assert_eq!(exponential.backoff().next(late, MIDDLE), pause);
        assert_eq!(exponential.backoff().next(late + Duration::from_nanos(1), MIDDLE), None);
        assert_eq!(retry("{duration: 1s}").unwrap().backoff().next(late * 2, MIDDLE), Some(Duration::from_secs(1)));
    }

    #[test]
    fn what_is_malformed_is_named() {
        for (yaml, field) in [
            ("{policy: linear}", "`policy` must be `constant` or `exponential`"),
            ("{duration: soon}", "`duration` must be a duration"),
            ("{policy: exponential, maxInterval: 1x}", "`maxInterval` must be a duration"),
        ] {
            let error = retry(yaml).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
