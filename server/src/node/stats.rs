//! Counters since the start, or since CONFIG RESETSTAT.
//!
//! Every command is counted, so counting must cost next to nothing: a shard counts into a [`StatsBatch`] of its own,
//! plain integers, and adds the batch to the shared atomics once a turn.

use crate::resp::ErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Commands have numbers below this.
pub const COMMAND_IDS_MAX: usize = 256;

/// Different error codes that are counted; the rest, should there be more, are counted together.
const ERROR_CODES_MAX: usize = 128;

/// Samples from which rates are averaged, one every [`SAMPLE_MS`].
const SAMPLES: usize = 16;
const SAMPLE_MS: u64 = 100;

/// Counts of one command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandCounts {
    /// How often it ran.
    pub calls: u64,
    /// How long it ran in total, in nanoseconds.
    pub nanos: u64,
    /// How often it was refused before it ran.
    pub rejected: u64,
    /// How often it answered with an error.
    pub failed: u64,
}

#[derive(Debug, Default)]
struct CommandCell {
    calls: AtomicU64,
    nanos: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Plain counters: those of [`Stats`] at one moment, or those that a batch adds.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        struct Cells {
            $($name: AtomicU64,)*
        }

        impl Cells {
            fn add(&self, counters: &Counters) {
                $(if counters.$name > 0 { self.$name.fetch_add(counters.$name, Relaxed); })*
            }

            fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Relaxed),)* }
            }

            fn reset(&self) {
                $(self.$name.store(0, Relaxed);)*
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections_received,
    /// Connections refused.
    connections_rejected,
    /// Commands that ran.
    commands_processed,
    /// Bytes read from clients.
    input_bytes,
    /// Bytes written to clients.
    output_bytes,
    /// Reads from sockets.
    reads_processed,
    /// Writes to sockets.
    writes_processed,
    /// Lookups that found a key.
    keyspace_hits,
    /// Lookups that found none.
    keyspace_misses,
    /// Keys removed because their deadline had passed.
    expired_keys,
    /// Error replies.
    error_replies,
    /// Clients dropped because they did not read their replies.
    output_limit_disconnections,
}

/// The counters of a node.
#[derive(Debug)]
pub struct Stats {
    cells: Cells,
    commands: Box<[CommandCell]>,
    errors: Mutex<BTreeMap<ErrorCode, u64>>,
    rates: Mutex<Rates>,
    memory_peak_bytes: AtomicU64,
}

/// Rates averaged over the last second and a half.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RateFigures {
    /// Commands a second.
    pub commands: u64,
    /// Bytes read from clients a second.
    pub input_bytes: u64,
    /// Bytes written to clients a second.
    pub output_bytes: u64,
}

#[derive(Debug, Default)]
struct Rates {
    last_ms: u64,
    last: Counters,
    samples: [RateFigures; SAMPLES],
    next: usize,
}

impl Stats {
    pub(super) fn new(now_ms: u64) -> Self {
        Stats {
            cells: Cells::default(),
            commands: (0..COMMAND_IDS_MAX).map(|_| CommandCell::default()).collect(),
            errors: Mutex::default(),
            rates: Mutex::new(Rates { last_ms: now_ms, ..Rates::default() }),
            memory_peak_bytes: AtomicU64::new(0),
        }
    }

    /// Counts a connection that was let in.
    pub fn accepted_connection(&self) {
        self.cells.connections_received.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was turned away.
    pub fn rejected_connection(&self) {
        // Redis counts it as received, too.
        self.cells.connections_received.fetch_add(1, Relaxed);
        self.cells.connections_rejected.fetch_add(1, Relaxed);
    }

    /// Counts an error reply by its code, which may be followed by its text.
    pub fn record_error(&self, code: &str) {
        self.add_errors(ErrorCode::of(code), 1);
    }

    /// Adds what a batch has counted, and empties it.
    pub fn add(&self, batch: &mut StatsBatch) {
        self.cells.add(&batch.counters);
        batch.counters = Counters::default();
        for id in batch.touched.drain(..) {
            let counts = std::mem::take(&mut batch.commands[usize::from(id)]);
            let cell = &self.commands[usize::from(id)];
            cell.calls.fetch_add(counts.calls, Relaxed);
            cell.nanos.fetch_add(counts.nanos, Relaxed);
            cell.rejected.fetch_add(counts.rejected, Relaxed);
            cell.failed.fetch_add(counts.failed, Relaxed);
        }
        for (code, count) in std::mem::take(&mut batch.errors) {
            self.add_errors(code, count);
        }
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.cells.read()
    }

    /// The counts of a command, by its number.
    pub fn command(&self, id: u16) -> CommandCounts {
        self.commands.get(usize::from(id)).map_or_else(CommandCounts::default, |cell| CommandCounts {
            calls: cell.calls.load(Relaxed),
            nanos: cell.nanos.load(Relaxed),
            rejected: cell.rejected.load(Relaxed),
            failed: cell.failed.load(Relaxed),
        })
    }

    /// How often each error code was answered, by code.
    pub fn errors(&self) -> Vec<(ErrorCode, u64)> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().map(|(code, count)| (*code, *count)).collect()
    }

    /// Takes a sample for the rates, if one is due: to be called several times a second.
    pub fn sample(&self, now_ms: u64) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = now_ms.saturating_sub(rates.last_ms);
        if elapsed_ms < SAMPLE_MS {
            return;
        }
        let now = self.counters();
        let rate = |now: u64, last: u64| now.saturating_sub(last) * 1000 / elapsed_ms;
        let at = rates.next;
        rates.samples[at] = RateFigures {
            commands: rate(now.commands_processed, rates.last.commands_processed),
            input_bytes: rate(now.input_bytes, rates.last.input_bytes),
            output_bytes: rate(now.output_bytes, rates.last.output_bytes),
        };
        rates.next = (at + 1) % SAMPLES;
        rates.last = now;
        rates.last_ms = now_ms;
    }

    /// The rates over the last samples.
    pub fn rates(&self) -> RateFigures {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |of: fn(&RateFigures) -> u64| rates.samples.iter().map(of).sum::<u64>() / SAMPLES as u64;
        RateFigures {
            commands: mean(|sample| sample.commands),
            input_bytes: mean(|sample| sample.input_bytes),
            output_bytes: mean(|sample| sample.output_bytes),
        }
    }

    /// The most memory seen so far, `now_bytes` included.
    pub fn memory_peak(&self, now_bytes: u64) -> u64 {
        self.memory_peak_bytes.fetch_max(now_bytes, Relaxed).max(now_bytes)
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.cells.reset();
        for cell in &self.commands {
            for counter in [&cell.calls, &cell.nanos, &cell.rejected, &cell.failed] {
                counter.store(0, Relaxed);
            }
        }
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.memory_peak_bytes.store(0, Relaxed);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        *rates = Rates { last_ms: rates.last_ms, ..Rates::default() };
    }

    fn add_errors(&self, code: ErrorCode, count: u64) {
        self.cells.error_replies.fetch_add(count, Relaxed);
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let known = errors.len() < ERROR_CODES_MAX || errors.contains_key(&code);
        *errors.entry(if known { code } else { ErrorCode::of("OTHER") }).or_default() += count;
    }
}

/// What one shard has counted since it last added it to [`Stats`].
#[derive(Debug)]
pub struct StatsBatch {
    /// Plain counters, to be added to directly.
    pub counters: Counters,
    commands: Box<[CommandCounts]>,
    touched: Vec<u16>,
    errors: Vec<(ErrorCode, u64)>,
}

impl Default for StatsBatch {
    fn default() -> Self {
        StatsBatch {
            counters: Counters::default(),
            commands: vec![CommandCounts::default(); COMMAND_IDS_MAX].into(),
            touched: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl StatsBatch {
    /// Counts a command that ran, and the error that it answered with.
    #[inline]
    pub fn ran(&mut self, id: u16, nanos: u64, error: Option<ErrorCode>) {
        self.counters.commands_processed += 1;
        let counts = self.counts(id);
        counts.calls += 1;
        counts.nanos += nanos;
        if let Some(code) = error {
            counts.failed += 1;
            self.error(code);
        }
    }

    /// Counts a command that was refused before it ran.
    pub fn rejected(&mut self, id: u16, error: ErrorCode) {
        self.counts(id).rejected += 1;
        self.error(error);
    }

    /// Counts an error reply that belongs to no command.
    pub fn error(&mut self, code: ErrorCode) {
        match self.errors.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.errors.push((code, 1)),
        }
    }

    #[inline]
    fn counts(&mut self, id: u16) -> &mut CommandCounts {
        // Numbers come from the table, which keeps below the bound; a stray one is counted under the last.
        let at = usize::from(id).min(COMMAND_IDS_MAX - 1);
        let counts = &mut self.commands[at];
        if *counts == CommandCounts::default() {
            self.touched.push(at as u16);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up() {
        let stats = Stats::new(0);
        let mut batch = StatsBatch::default();
        let wrong = ErrorCode::of("WRONGTYPE Operation");
        for _ in 0..2 {
            batch.ran(3, 1500, None);
            batch.ran(3, 500, Some(wrong));
            batch.rejected(4, ErrorCode::of("ERR no"));
            batch.counters.keyspace_hits += 2;
            stats.add(&mut batch);
            stats.add(&mut batch);
        }
        assert_eq!(stats.command(3), CommandCounts { calls: 4, nanos: 4000, rejected: 0, failed: 2 });
        assert_eq!(stats.command(4), CommandCounts { rejected: 2, ..CommandCounts::default() });
        assert_eq!(stats.counters().commands_processed, 4);
        assert_eq!(stats.counters().keyspace_hits, 4);
        assert_eq!(stats.counters().error_replies, 4);
        let errors: Vec<_> = stats.errors().iter().map(|(code, n)| (code.as_str().to_owned(), *n)).collect();
        assert_eq!(errors, [("ERR".to_owned(), 2), ("WRONGTYPE".to_owned(), 2)]);
        stats.reset();
        assert_eq!(stats.command(3), CommandCounts::default());
        assert_eq!(stats.counters(), Counters::default());
        assert!(stats.errors().is_empty());
    }

    #[test]
    fn error_codes_are_bounded() {
        let stats = Stats::new(0);
        for at in 0..1000 {
            stats.record_error(&format!("CODE{at} text"));
        }
        assert!(stats.errors().len() <= ERROR_CODES_MAX + 1);
        assert_eq!(stats.errors().iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    #[test]
    fn rates_are_averaged_over_the_samples() {
        let stats = Stats::new(0);
        let mut batch = StatsBatch::default();
        for at in 1..=SAMPLES as u64 {
            batch.counters.commands_processed = 10;
            batch.counters.input_bytes = 1000;
            stats.add(&mut batch);
            stats.sample(at * 100);
        }
        assert_eq!(stats.rates(), RateFigures { commands: 100, input_bytes: 10_000, output_bytes: 0 });
        assert_eq!(stats.memory_peak(5), 5);
        assert_eq!(stats.memory_peak(3), 5);
    }
}
