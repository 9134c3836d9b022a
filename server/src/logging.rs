//! The node's own messages: to standard error, or to a file.

use crate::settings::Settings;
use std::fs::OpenOptions;
use std::io::{self, IsTerminal};
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

/// Changes the level while the node runs.
#[derive(Debug, Clone)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

impl LevelHandle {
    /// Sets the level by its name in the settings.
    pub fn set(&self, name: &str) {
        // The subscriber lives as long as the process.
        let _ = self.0.modify(|filter| *filter = targets(name));
    }
}

/// Our own messages at the level asked for; what the stores say of their insides only when it is a warning.
fn targets(level: &str) -> Targets {
    let level: LevelFilter = level.parse().unwrap_or(LevelFilter::INFO);
    let stores = ["fjall", "lsm_tree", "sled"].map(|target| (target, level.min(LevelFilter::WARN)));
    Targets::new().with_default(level).with_targets(stores)
}

/// Starts writing messages.
///
/// # Errors
/// When the log file can't be opened.
pub fn start(settings: &Settings) -> io::Result<LevelHandle> {
    let (level, handle) = reload::Layer::new(targets(settings.log_level.name()));
    let registry = tracing_subscriber::registry().with(level);
    let started = if settings.log_file.as_os_str().is_empty() {
        let ansi = io::stderr().is_terminal();
        registry.with(fmt::layer().with_writer(io::stderr).with_ansi(ansi).with_target(false)).try_init()
    } else {
        let file = OpenOptions::new().create(true).append(true).open(&settings.log_file)?;
        registry.with(fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).with_target(false)).try_init()
    };
    started.map_err(io::Error::other)?;
    Ok(LevelHandle(handle))
}
