//! How far something long is, as a bar on standard error, for a person who waits. There is none where standard
//! error is no terminal, and none for what takes a moment; it is gone when the result is printed.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

/// A person looks at nothing for as long.
const PATIENCE: Duration = Duration::from_millis(500);

/// Taken away when the work is done, however that ends.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// To be told of each step.
pub(super) fn shown() -> impl Fn(u64, u64) {
    shown_if(true)
}

/// The same where a bar is wanted, and nothing where not.
pub(super) fn shown_if(wanted: bool) -> impl Fn(u64, u64) {
    let bar = Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
    if let Ok(style) = ProgressStyle::with_template("{bar:40.cyan} {pos} of {len}, {eta} left") {
        bar.0.set_style(style);
    }
    let started = Instant::now();
    move |done, of| {
        if !wanted {
            return;
        }
        let Bar(bar) = &bar;
        if bar.is_hidden() && started.elapsed() >= PATIENCE {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        bar.set_length(of);
        bar.set_position(done);
    }
}
