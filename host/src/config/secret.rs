//! Text that must not be printed.
//!
//! A secret comes from the environment or from a file of its own, never from the configuration file:
//! that one gets committed, mailed and pasted. `Debug` shows nothing of it, there is no `Display` and
//! no `Serialize`, so it leaves the process only where [`Secret::expose`] is written.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// A secret text without its surrounding white space, and the file it came from if it did.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    text: String,
    file: Option<PathBuf>,
}

impl Secret {
    /// Takes a secret; a trailing line end, as editors and `echo` leave it in files, is not part of it.
    pub fn new(text: &str) -> Self {
        Self { text: text.trim().to_owned(), file: None }
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The file it was read from, for those who look at it again; none when it came from the environment.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Notes the file it was read from.
    pub fn came_from(&mut self, file: &Path) {
        self.file = Some(file.to_owned());
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
