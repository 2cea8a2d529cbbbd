//! How far a long reading is, on standard error: a bar for a person who waits, a plain line now and then for
//! everybody else. What takes a moment shows nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reservegrid::ledger::read::Watch;
use std::{
    io::{IsTerminal, stderr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A person looks at nothing for as long.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two lines.
const BETWEEN: Duration = Duration::from_secs(10);

/// The bar or the lines of one command.
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let form = "{bar:40} {percent:>3} % of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        Self { bar, terminal: stderr().is_terminal() }
    }

    /// Takes the bar away, before anything else is said.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// To be told of each step.
    pub(crate) fn watch(&self) -> Watch {
        let Self { bar, terminal } = self;
        let (bar, terminal, started) = (bar.clone(), *terminal, Instant::now());
        let said = Mutex::new(started);
        Arc::new(move |read, total| {
            if terminal {
                if bar.is_hidden() && started.elapsed() >= PATIENCE {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                bar.set_length(total);
                bar.set_position(read);
                return;
            }
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.elapsed() >= BETWEEN {
                *said = Instant::now();
                let percent = 100 * read / total.max(1);
                eprintln!("read {percent} % of {} MB", total / 1_000_000);
            }
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}
