//! Figures that shard threads publish and INFO reads.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The lines of a section of INFO.
#[derive(Debug, Default)]
pub struct InfoText {
    text: String,
}

impl InfoText {
    /// Begins a section.
    pub fn section(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        // Writing to a string can't fail.
        let _ = write!(self.text, "# {name}\r\n");
    }

    /// Adds `name:value`.
    pub fn line(&mut self, name: &str, value: impl Display) {
        let _ = write!(self.text, "{name}:{value}\r\n");
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.text
    }
}

/// Contributes a section of its own to INFO.
pub trait InfoSource: Send + Sync {
    /// The section's name as it is asked for, in lower case.
    fn section(&self) -> &str;

    /// Adds the section's lines. It must not block.
    fn lines(&self, text: &mut InfoText);
}

/// A section of INFO that consists of numbers, set by whoever owns what they describe.
#[derive(Debug)]
pub struct GaugeSet {
    section: &'static str,
    names: &'static [&'static str],
    values: Box<[AtomicU64]>,
}

impl GaugeSet {
    pub(super) fn new(section: &'static str, names: &'static [&'static str]) -> Self {
        GaugeSet { section, names, values: names.iter().map(|_| AtomicU64::new(0)).collect() }
    }

    /// Sets the number at `index` of the names.
    ///
    /// # Panics
    /// If there are fewer names.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        self.values[index].store(value, Relaxed);
    }
}

impl InfoSource for GaugeSet {
    fn section(&self) -> &str {
        self.section
    }

    fn lines(&self, text: &mut InfoText) {
        for (name, value) in self.names.iter().zip(&self.values) {
            text.line(name, value.load(Relaxed));
        }
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The figures of a shard at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ShardFigures {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Where a shard publishes its figures.
        #[derive(Debug, Default)]
        pub struct ShardGauges {
            $($name: AtomicU64,)*
        }

        impl ShardGauges {
            /// Replaces what was published before.
            pub fn publish(&self, figures: &ShardFigures) {
                $(self.$name.store(figures.$name, Relaxed);)*
            }

            /// What was published last.
            pub fn read(&self) -> ShardFigures {
                ShardFigures { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl ShardFigures {
            pub(super) fn add(&mut self, other: &ShardFigures) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }
    };
}

figures! {
    /// Live keys.
    keys,
    /// Live keys with a deadline.
    keys_expiring,
    /// The sum over keys with a deadline of the milliseconds that they have left, or 0 if it is not known.
    ttl_sum_ms,
    /// Memory on the shard's account: memtables, cache, entries, buffers.
    memory_bytes,
    /// The part of it that is keys and values.
    dataset_bytes,
    /// The part of it that is connections' buffers.
    client_bytes,
    /// Clients that wait in a blocking command.
    blocked_clients,
    /// Writes that are in the log but not yet in the store.
    writes_since_checkpoint,
    /// Bytes of the log on disk.
    log_bytes,
    /// How often recent writes were moved to the store since the start.
    checkpoints,
    /// Whether that is going on.
    checkpoint_running,
    /// When it last succeeded, in milliseconds since the epoch; 0 for not yet.
    checkpoint_last_ms,
    /// Whether writing was stopped by a failed disk: 1 if so.
    writes_stopped,
    /// The log position applied last.
    applied_index,
}
