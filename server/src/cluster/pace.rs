//! How nodes' clocks and settings must fit together for a leader's lease to be safe.

/// What a node's timing rests on. Nodes tell each other, since a leader answers reads on its own for as long as nobody else can have been
/// elected, and how long that is, is for the others' settings to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// How long the node waits for a leader before it elects another, in milliseconds, by its own clock.
    pub election_timeout_ms: u64,
    /// How long the node answers reads by itself after a majority confirmed that it leads, in milliseconds; 0: never.
    pub lease_ms: u64,
    /// By how much it takes clocks to run apart at most, in percent.
    pub clock_drift_percent: u64,
}

impl Pace {
    /// Whether a leader with this lease has ended it before a voter of the other pace elects anybody else.
    fn is_safe_with(&self, voter: &Pace) -> bool {
        let drift = self.clock_drift_percent.max(voter.clock_drift_percent);
        // The voter's clock may run fast: its timeout ends sooner by the leader's.
        let elects_ms = voter.election_timeout_ms.saturating_mul(100) / (100 + drift.min(1000));
        self.lease_ms == 0 || self.lease_ms < elects_ms
    }

    /// Whether either of two nodes may lead the other.
    ///
    /// # Errors
    /// Why not, and what to do about it. `me` is the node of this pace.
    pub fn check(&self, me: super::NodeId, other: super::NodeId, pace: &Pace) -> Result<(), String> {
        for (leader, lease, voter, follower) in [(me, self, other, pace), (other, pace, me, self)] {
            if !lease.is_safe_with(follower) {
                return Err(format!(
                    "election-timeout is {} ms on node {leader} and {} ms on node {voter} (clocks up to {} % apart): node {leader} \
                     would answer reads from a lease of {} ms when node {voter} may have elected another; set election-timeout to \
                     the same on all nodes, or reads to quorum on node {leader}",
                    lease.election_timeout_ms,
                    follower.election_timeout_ms,
                    lease.clock_drift_percent.max(follower.clock_drift_percent),
                    lease.lease_ms
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(election_timeout_ms: u64, leases: bool) -> Pace {
        let config = holdfast_raft::Config { election_timeout_ms, ..holdfast_raft::Config::new(1) };
        let lease_ms = if leases { config.lease_ms() } else { 0 };
        Pace { election_timeout_ms, lease_ms, clock_drift_percent: config.clock_drift_percent }
    }

    #[test]
    fn equal_settings_fit() {
        for timeout in [50, 100, 500, 1000, 60_000] {
            assert_eq!(pace(timeout, true).check(1, 2, &pace(timeout, true)), Ok(()), "{timeout}");
        }
    }

    #[test]
    fn lease_that_outlasts_a_voters_patience_is_refused_by_both() {
        for (one, other) in [(500, 1000), (1000, 500)] {
            let text = pace(one, true).check(1, 2, &pace(other, true)).unwrap_err();
            assert!(text.contains("election-timeout is 1000 ms"), "{text}");
            assert!(text.contains("same on all nodes"), "{text}");
        }
    }

    #[test]
    fn without_leases_any_timeouts_fit() {
        assert_eq!(pace(500, false).check(1, 2, &pace(5000, false)), Ok(()));
        assert_eq!(pace(500, true).check(1, 2, &pace(5000, false)), Ok(()), "only the patient one has no lease");
        assert!(pace(500, false).check(1, 2, &pace(5000, true)).is_err());
    }

    #[test]
    fn larger_drift_counts() {
        let wide = Pace { clock_drift_percent: 50, ..pace(1000, true) };
        assert!(pace(1000, true).check(1, 2, &wide).is_err());
        let absurd = Pace { election_timeout_ms: u64::MAX, lease_ms: u64::MAX, clock_drift_percent: u64::MAX };
        assert!(absurd.check(1, 2, &absurd).is_err(), "and nothing overflows");
    }
}
