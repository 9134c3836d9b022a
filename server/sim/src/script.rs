//! Runs whose course is written down: what the cluster is, what its clients do, and what goes wrong, step by step.
//!
//! A seed finds what nobody thought of; a script shows what somebody did. It is a test's own code, run beside the same world that
//! [`simulate`](crate::world::simulate) runs, with the same invariants after every event and the same judgement at the end:
//!
//! ```text
//!   Script ── what the cluster is ──▶ play(|stage| …) ──▶ Report
//!                                        │  inflict, split, kill, …     what goes wrong, now
//!                                        │  run_for, run_until          time goes on; clients go on all the while
//!                                        │  ask, heard, call            requests of the script's own
//! ```
//!
//! The seed still decides everything that the script leaves open (delays, what the clients ask, what a crash leaves on a disk), so a
//! script gives the same run each time. Once it is through, everything is mended, and the run ends as all runs do.
//!
//! # Caveats
//! - [`Settings`] of a script are mild and fixed ([`Settings::mild`]): nothing is drawn that the script does not ask for.
//! - A script's own requests are no part of the history that the checker judges: their keys must be their own, and the test has to
//!   look at what they were answered.

use crate::network::NetworkWeather;
use crate::plan::Plan;
use crate::random::Random;
use crate::time::{MILLISECOND, Micros};
use crate::trace::Trace;
use crate::workload::{KeyKind, WorkloadSettings};
use crate::world::{Report, Settings, Stage};

/// What a scripted cluster is, and what its clients do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Decides what the script leaves open.
    pub seed: u64,
    /// Nodes of the cluster.
    pub nodes: u32,
    /// How they are set up.
    pub settings: Settings,
    /// What the clients do.
    pub workload: WorkloadSettings,
    /// The network once the cluster is whole.
    pub weather: NetworkWeather,
    /// Whether everything that happens is printed, for whoever has to find out why.
    pub is_told: bool,
}

impl Script {
    /// A calm cluster with one client, which appends to a key of its own as those of MIT's course do.
    pub fn new(seed: u64, nodes: u32) -> Script {
        let workload = WorkloadSettings {
            clients: 0,
            keys: [(KeyKind::Log, 1)].into(),
            operations_per_key_max: 100,
            pipeline_max: 1,
            think_us: 0..=40 * MILLISECOND,
            timeout_us: 500 * MILLISECOND,
            ..WorkloadSettings::new(nodes)
        };
        let weather = NetworkWeather::calm();
        let script = Script { seed, nodes, settings: Settings::mild(), workload, weather, is_told: false };
        script.clients(1)
    }

    /// So many clients, which send again what was not answered, under its number.
    pub fn clients(mut self, clients: u32) -> Script {
        self.workload.session_clients = clients;
        self
    }

    /// So many clients, which leave it at that when an answer does not come.
    pub fn forgetful_clients(mut self, clients: u32) -> Script {
        (self.workload.clients, self.workload.session_clients) = (clients, 0);
        self
    }

    /// Clients use so many keys of each kind at a time.
    pub fn keys(mut self, keys: impl IntoIterator<Item = (KeyKind, u32)>) -> Script {
        self.workload.keys = keys.into_iter().collect();
        self
    }

    /// The longest that a client thinks between an answer and its next command.
    pub fn think(mut self, longest: Micros) -> Script {
        self.workload.think_us = 0..=longest;
        self
    }

    /// The network once the cluster is whole.
    pub fn weather(mut self, weather: NetworkWeather) -> Script {
        self.weather = weather;
        self
    }

    /// Logs no longer than this many bytes, so that memtables are flushed, logs cut and snapshots needed all the time.
    pub fn log_bytes(mut self, log_bytes_max: u64) -> Script {
        self.settings.log_bytes_max = log_bytes_max;
        self.settings.segment_bytes = (log_bytes_max / 4).max(16 << 10);
        self
    }

    /// Waits until every node is a voter, runs the script, then the end that every run has: all is mended, every key is read, the cluster becomes whole.
    ///
    /// # Panics
    /// Where the script's own code does.
    pub fn play(self, act: impl FnOnce(&mut Stage<'_, '_>)) -> Report {
        let plan = Plan::calm(self.nodes, 0);
        let mut trace =
            if self.is_told { Trace::with_lines(Box::new(|line| println!("{line}"))) } else { Trace::new() };
        Stage::play(&plan, self.settings, self.workload, &Random::new(self.seed), self.weather, &mut trace, act)
    }
}
