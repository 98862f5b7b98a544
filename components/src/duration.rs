//! Durations in component metadata: Go's notation, or a bare integer in a unit that depends on the component.

use std::time::Duration;

/// A duration as Go has it: it may be negative, which most options read as 'none'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoDuration {
    Negative,
    NonNegative(Duration),
}

/// Go's longest duration, 292 years: what fits, clocks can be moved by.
const LONGEST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

impl GoDuration {
    /// Reads `300ms`, `1.5h`, `2h45m`, `-1s` (Go's `time.ParseDuration`) or an integer of `bare_unit`.
    pub fn parse(text: &str, bare_unit: Duration) -> Option<Self> {
        let (negative, magnitude) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        // The sign is gone: another one is none.
        let duration = match magnitude.parse::<u32>() {
            _ if magnitude.starts_with(['+', '-']) => return None,
            Ok(count) => bare_unit.checked_mul(count)?,
            Err(_) => parse_units(magnitude)?,
        };
        if duration > LONGEST {
            return None;
        }
        let below_zero = negative && !duration.is_zero();
        Some(if below_zero { Self::Negative } else { Self::NonNegative(duration) })
    }

    /// The duration, if it is above zero.
    pub fn positive(self) -> Option<Duration> {
        match self {
            Self::NonNegative(duration) if !duration.is_zero() => Some(duration),
            _ => None,
        }
    }
}

/// One or more numbers, each followed by its unit.
fn parse_units(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len()));
        let seconds = number.parse::<f64>().ok()? * seconds_of(unit)?;
        total = total.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn seconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<u128> {
        match GoDuration::parse(text, Duration::from_millis(1))? {
            GoDuration::NonNegative(duration) => Some(duration.as_millis()),
            GoDuration::Negative => panic!("{text} is not negative"),
        }
    }

    #[test]
    fn go_notation_is_read() {
        assert_eq!(millis("300ms"), Some(300));
        assert_eq!(millis("1.5h"), Some(5_400_000));
        assert_eq!(millis("2h45m"), Some(9_900_000));
        assert_eq!(millis("+5s"), Some(5_000));
        assert_eq!(millis("0"), Some(0));
    }

    #[test]
    fn a_bare_integer_counts_in_the_unit_of_the_component() {
        assert_eq!(millis("250"), Some(250));
        let seconds = GoDuration::parse("20", Duration::from_secs(1));
        assert_eq!(seconds, Some(GoDuration::NonNegative(Duration::from_secs(20))));
    }

    #[test]
    fn a_negative_duration_is_told_apart_from_none_at_all() {
        assert_eq!(GoDuration::parse("-1", Duration::from_millis(1)), Some(GoDuration::Negative));
        assert_eq!(GoDuration::parse("-1.5s", Duration::from_millis(1)), Some(GoDuration::Negative));
        assert_eq!(GoDuration::parse("-0", Duration::from_millis(1)), Some(GoDuration::NonNegative(Duration::ZERO)));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "-", "5 s", "five", "5x", "s", "1.2.3s", "1.5", "-+5", "+-5", "99999999999999999999h", "2562048h"]
        {
            assert_eq!(GoDuration::parse(text, Duration::from_millis(1)), None, "{text:?}");
        }
    }
}
