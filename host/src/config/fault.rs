//! What is wrong with a configuration, and where.
//!
//! All faults of a configuration are shown together, one a line, in the order of the file, so that an
//! operator corrects them in one go. A place is a line and column of the file, or the environment
//! variable that gave the value.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Where a value was written. Ordered as faults are listed: the file from top to bottom, then what the
/// file lacks, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line and a column of the file, both from 1; columns count characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// The file as a whole: something that should be in it is not.
    Whole,
    /// An environment variable.
    Variable(String),
}

impl Place {
    /// The line in the file, where there is one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => Some(*line),
            Self::Whole | Self::Variable(_) => None,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What, beginning with the section and key it is about, ending with what to do.
    pub message: String,
}

/// Everything that is wrong with a configuration; never empty. `Display` gives one line for each fault:
/// `gateway.toml:12:19: [gate] verdict_timeout: "50" is not a duration; write e.g. "50ms"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFaults {
    file: PathBuf,
    faults: Vec<Fault>,
}

impl ConfigFaults {
    pub(super) fn new(file: &Path, mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup();
        Self { file: file.to_owned(), faults }
    }

    /// The faults, in the order in which they are shown.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter()
    }

    /// Where a fault is, as it is shown: `gateway.toml:12:19`, or the name of a variable.
    pub fn place(&self, fault: &Fault) -> String {
        match &fault.place {
            Place::File { line, column } => format!("{}:{line}:{column}", self.file.display()),
            Place::Whole => self.file.display().to_string(),
            Place::Variable(name) => name.clone(),
        }
    }

    /// The file the faults are in.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let line_end = if index > 0 { "\n" } else { "" };
            write!(f, "{line_end}{}: {}", self.place(fault), fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFaults {}
