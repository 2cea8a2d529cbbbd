//! Commands that are more than a line of `main`.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

pub(crate) mod ledger;
pub(crate) mod policy;
mod progress;
pub(crate) mod record;
mod steps;

/// Writes lines to standard output. Whoever reads them and has seen enough (`| head`) is no fault.
pub(crate) fn say(lines: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{lines}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
