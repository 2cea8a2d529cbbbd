//! Text that must not be printed.
//!
//! A secret comes from the environment or from a file of its own, never from the configuration file:
//! that one gets committed, mailed and pasted. `Debug` shows nothing of it, there is no `Display` and
//! no `Serialize`, so it leaves the process only where [`Secret::expose`] is written.

use std::fmt;

/// A secret text without its surrounding white space.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret; a trailing line end, as editors and `echo` leave it in files, is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_by_debug_and_loses_its_line_end() {
        let secret = Secret::new("hunter2-hunter2\n");
        assert_eq!(secret.expose(), "hunter2-hunter2");
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
