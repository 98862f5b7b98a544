//! How long a value lives: `ttlInSeconds`.
//!
//! Source: dapr/components-contrib `state/utils/ttl.go`.

use std::time::SystemTime;

use host_abi::error::{Error, ErrorClass};
use host_abi::state::{Metadata, SetRequest};
use time::OffsetDateTime;

/// Exactly so in a request's metadata; in any case in a component's, where it is the default.
pub(crate) const TTL_IN_SECONDS: &str = "ttlInSeconds";

/// In the metadata of an answer: when the value expires, by RFC 3339.
pub(crate) const TTL_EXPIRE_TIME: &str = "ttlExpireTime";

pub(crate) const EXPECTED: &str = "a whole number of seconds, at most 2147483647";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    /// Zero or below: the value does not expire, whatever was set before.
    Never,
    Seconds(u32),
}

impl Ttl {
    /// None for what is not a whole number, or more than 68 years, Dapr's limit.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.parse::<i64>().ok()? {
            ..=0 => Some(Self::Never),
            seconds => i32::try_from(seconds).ok().map(|seconds| Self::Seconds(seconds.unsigned_abs())),
        }
    }

    /// What the request asks for; an empty value asks for nothing.
    ///
    /// # Errors
    /// The value is malformed: [`ErrorClass::InvalidArgument`].
    pub(crate) fn of(request: &SetRequest) -> Result<Option<Self>, Error> {
        let pairs = request.metadata.iter().flatten();
        let Some((_, text)) = pairs.rev().find(|(name, text)| name == TTL_IN_SECONDS && !text.is_empty()) else {
            return Ok(None);
        };
        let malformed = || {
            let message = format!("key {:?}: {TTL_IN_SECONDS} is {text:?} and must be {EXPECTED}", request.key);
            Error::new(ErrorClass::InvalidArgument, message)
        };
        Self::parse(text).map(Some).ok_or_else(malformed)
    }

    pub(crate) fn seconds(self) -> Option<u32> {
        match self {
            Self::Never => None,
            Self::Seconds(seconds) => Some(seconds),
        }
    }
}

/// The metadata of an answer whose value expires.
pub(crate) fn expiry_metadata(rfc3339: String) -> Metadata {
    vec![(TTL_EXPIRE_TIME.to_owned(), rfc3339)]
}

/// Universal time to the second, `2026-08-21T09:30:00Z`. None before 1970 and after the year 9999, which RFC 3339 does not have.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let time = OffsetDateTime::from_unix_timestamp(seconds.try_into().ok()?).ok()?;
    let (date, (hour, minute, second)) = (time.date(), time.to_hms());
    Some(format!("{date}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn requested(pairs: &[(&str, &str)]) -> Result<Option<Ttl>, Error> {
        let pairs = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Ttl::of(&SetRequest { metadata: Some(pairs.collect()), ..SetRequest::default() })
    }

    #[test]
    fn above_zero_is_seconds_and_the_rest_is_for_ever() {
        assert_eq!(requested(&[("ttlInSeconds", "2")]), Ok(Some(Ttl::Seconds(2))));
        assert_eq!(requested(&[("ttlInSeconds", "0")]), Ok(Some(Ttl::Never)));
        assert_eq!(requested(&[("ttlInSeconds", "-1")]), Ok(Some(Ttl::Never)));
    }

    #[test]
    fn the_name_is_matched_exactly_and_an_empty_value_asks_for_nothing() {
        assert_eq!(requested(&[("TTLInSeconds", "2")]), Ok(None));
        assert_eq!(requested(&[("ttlInSeconds", "")]), Ok(None));
        assert_eq!(requested(&[]), Ok(None));
    }

    #[test]
    fn what_is_not_a_whole_number_is_an_invalid_argument() {
        for text in ["foo", "1.5", "2s", "2147483648", "99999999999999999999"] {
            let class = requested(&[("ttlInSeconds", text)]).map_err(|error| error.class);
            assert_eq!(class, Err(ErrorClass::InvalidArgument), "{text}");
        }
    }

    #[test]
    fn times_are_written_by_rfc_3339() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap_or_default();
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(at(1_787_304_600), "2026-08-21T09:30:00Z");
        assert_eq!(at(1 << 40), "");
    }
}
