//! Sizes: as Kubernetes writes quantities of memory, and as they are printed.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};

/// What a size may look like, for messages.
pub(crate) const EXPECTED: &str = "a size such as 65536, 64Ki, 16Mi or 1Gi";

/// Bytes.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let units = [("Ki", 1_u64 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];
    let unit = units.iter().find_map(|(unit, bytes)| text.strip_suffix(unit).map(|count| (count, *bytes)));
    let (count, unit) = unit.unwrap_or((text, 1));
    count.parse::<u64>().ok()?.checked_mul(unit)
}

/// Bytes, to be read by people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A size in YAML, or bytes as a number.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    struct Size;

    impl Visitor<'_> for Size {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
            parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_any(Size)
}
