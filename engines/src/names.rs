//! Names that a module gives, in messages for people.

/// Characters of one name that are shown.
const LONGEST: usize = 200;

/// The beginning of a name, without anything that a terminal would obey.
pub(crate) fn shown(name: &str) -> String {
    let start: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() { start + "…" } else { start }
}
