//! The log: what the parts of the program say beside the events, on standard error, as text or JSON.
//!
//! The levels may change while the program runs.

use crate::config::{Log, LogFormat};
use anstream::{AutoStream, ColorChoice};
use std::io;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// The running log.
#[derive(Clone)]
pub struct Logs(reload::Handle<EnvFilter, Registry>);

impl Logs {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// When the levels are none, or there is a log already.
    pub fn start(log: &Log) -> anyhow::Result<Self> {
        let (levels, handle) = reload::Layer::new(EnvFilter::try_new(&log.levels)?);
        let lines = fmt::layer().with_writer(io::stderr);
        let lines = match log.format {
            LogFormat::Json => lines.json().boxed(),
            LogFormat::Text => {
                // Colours are for people, unless they set NO_COLOR.
                lines.with_ansi(AutoStream::choice(&io::stderr()) != ColorChoice::Never).boxed()
            }
        };
        tracing_subscriber::registry().with(levels).with(lines).try_init()?;
        Ok(Self(handle))
    }

    /// Other levels from now on. They were checked when the configuration was read.
    pub fn set_levels(&self, levels: &str) {
        if let Ok(levels) = EnvFilter::try_new(levels) {
            let _ = self.0.reload(levels);
        }
    }
}
