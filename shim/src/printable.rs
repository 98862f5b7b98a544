//! Messages with parts of an image's making.

/// Text that an image may have made up, harmless to a terminal and to who reads it there.
pub(crate) fn printable(text: &str) -> String {
    let escaped = |c: char| if c.is_control() || turns_text(c) { c.escape_default().collect() } else { vec![c] };
    text.chars().flat_map(escaped).collect()
}

/// Characters that have the text around them shown in another order (Unicode's Bidi_Control).
fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_what_is_shown() {
        assert_eq!(printable("/ünï \u{5d0}.wasm"), "/ünï \u{5d0}.wasm");
        assert_eq!(printable("\x1b[2J\r\n"), r"\u{1b}[2J\r\n");
        assert_eq!(printable("msaw.\u{202e}app\u{2069}"), r"msaw.\u{202e}app\u{2069}");
    }
}
