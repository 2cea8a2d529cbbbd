//! Texts from outside, made fit for a log line or an event.

use std::error::Error;

/// An error with its causes, since the outermost alone says little ("error sending request").
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words = format!("{words}: {error}");
        source = error.source();
    }
    words
}

/// The first `max` characters of what somebody else sent, without control characters.
pub(crate) fn printable(bytes: &[u8], max: usize) -> String {
    // A character has at most four bytes; the rest need not be looked at.
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * max)]);
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_on_one_line() {
        assert_eq!(printable(b"no\r\nsuch\x1b[31m account", 100), "no  such [31m account");
        assert_eq!(printable("ä".repeat(500).as_bytes(), 3), "äää");
        assert_eq!(printable(b"\xff\xfe", 100), "\u{fffd}\u{fffd}");
    }
}
