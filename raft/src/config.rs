//! The settings of one replica, each with its unit in its name.

use crate::entry::{Millis, ReplicaId};

/// The settings of one replica. Start from [`Config::new`] and change what you need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who this replica is. Not zero.
    pub id: ReplicaId,
    /// Where its random numbers start. Replicas of a group should differ, and so must the runs of one replica: answers to
    /// its questions are told apart by such numbers, and one to an earlier run may still be on its way.
    pub seed: u64,
    /// A follower that hears nothing for between once and twice this time campaigns; within it, it votes for nobody
    /// else. The same for all replicas of a group.
    pub election_timeout_ms: Millis,
    /// How often a leader shows that it lives.
    pub heartbeat_interval_ms: Millis,
    /// How much faster one replica's clock may run than another's, in percent of elapsed time. Bounds the lease.
    pub clock_drift_percent: u64,
    /// Ask before campaigning, so that a replica coming back from a partition disturbs nobody. Turn off only to test
    /// mixed groups.
    pub pre_vote: bool,
    /// After how long without anything to do the group goes to sleep; never for `None`, and only where the host tells of
    /// nodes that are gone ([`Raft::peer_lost`](crate::Raft::peer_lost)). The same for all replicas of a group.
    pub sleep_after_ms: Option<Millis>,
    /// Serve reads from a lease where one is held, else always by a quorum round.
    pub lease: bool,
    /// A leader with followers whose oldest write has taken longer than this steps down: its heartbeats would
    /// otherwise keep a leader in office that can't store anything.
    pub write_stall_ms: Millis,
    /// The most bytes of entries in one append message (a single larger entry is sent alone).
    pub append_bytes_max: usize,
    /// The most append messages on their way to one follower.
    pub inflight_appends_max: usize,
    /// The most bytes on their way to one follower; at least one message is always admitted.
    pub inflight_bytes_max: usize,
    /// The most bytes that a leader holds appended but not committed; at least one entry is always admitted.
    pub uncommitted_bytes_max: usize,
    /// The most bytes of committed entries handed out and not yet reported applied; at least one entry is admitted.
    pub unapplied_bytes_max: usize,
    /// The most bytes of already stored entries kept in memory to spare reading them back.
    pub tail_bytes_max: usize,
    /// The most reads that wait for a quorum round.
    pub reads_waiting_max: usize,
}

/// Two roundings down to a whole millisecond, one at each end of a lease.
pub(crate) const LEASE_ROUNDING_MS: Millis = 2;

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raft setting {setting}: {reason}")]
pub struct ConfigError {
    /// The name of the setting.
    pub setting: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Config {
    /// Settings fit for a local network: elections after one to two seconds, ten heartbeats in that time.
    pub fn new(id: ReplicaId) -> Config {
        Config {
            id,
            seed: id,
            election_timeout_ms: 1000,
            heartbeat_interval_ms: 100,
            clock_drift_percent: 10,
            pre_vote: true,
            sleep_after_ms: None,
            lease: true,
            write_stall_ms: 5000,
            append_bytes_max: 1 << 20,
            inflight_appends_max: 64,
            inflight_bytes_max: 8 << 20,
            uncommitted_bytes_max: 64 << 20,
            unapplied_bytes_max: 64 << 20,
            tail_bytes_max: 8 << 20,
            reads_waiting_max: 64 << 10,
        }
    }

    /// How long after the send time of a confirmed round a leader may answer reads without asking.
    ///
    /// No voter of the confirming quorum elects another within `election_timeout_ms` of *hearing* the round, on its own
    /// clock. It heard it no earlier than it was sent, and its clock runs at most `clock_drift_percent` faster than the
    /// leader's; two roundings to milliseconds are taken off as well.
    pub fn lease_ms(&self) -> Millis {
        let drift = self.election_timeout_ms * self.clock_drift_percent / 100 + 1;
        self.election_timeout_ms.saturating_sub(drift + LEASE_ROUNDING_MS)
    }

    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// Names the first setting that doesn't.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rules: [(bool, &'static str, &'static str); 9] = [
            (self.id != 0, "id", "zero means nobody"),
            (self.heartbeat_interval_ms > 0, "heartbeat_interval_ms", "must not be zero"),
            (
                self.election_timeout_ms >= 2 * self.heartbeat_interval_ms,
                "election_timeout_ms",
                "must be at least two heartbeat intervals, or one lost heartbeat costs the leader its office",
            ),
            (self.election_timeout_ms < 1 << 32, "election_timeout_ms", "must be below 2^32"),
            (self.clock_drift_percent < 100, "clock_drift_percent", "must be below 100"),
            (self.append_bytes_max > 0, "append_bytes_max", "must not be zero"),
            (self.inflight_appends_max > 0, "inflight_appends_max", "must not be zero"),
            (self.reads_waiting_max > 0, "reads_waiting_max", "must not be zero"),
            (self.write_stall_ms > 0, "write_stall_ms", "must not be zero"),
        ];
        match rules.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, setting, reason)) => Err(ConfigError { setting, reason }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_ends_before_a_fast_clock_votes() {
        let config = Config::new(1);
        // A follower whose clock runs 10 % fast sees the election timeout end after this much of the leader's time.
        let earliest_vote_ms = config.election_timeout_ms * 100 / (100 + config.clock_drift_percent);
        assert!(config.lease_ms() + LEASE_ROUNDING_MS < earliest_vote_ms);
        assert!(config.lease_ms() > 0);
    }

    #[test]
    fn contradictions_are_named() {
        assert_eq!(Config::new(0).validate().unwrap_err().setting, "id");
        let config = Config { heartbeat_interval_ms: 600, ..Config::new(1) };
        assert_eq!(config.validate().unwrap_err().setting, "election_timeout_ms");
        assert!(Config::new(1).validate().is_ok());
    }
}
