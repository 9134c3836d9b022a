//! What goes wrong, to whom, and for how long: drawn from a seed.

use std::collections::BTreeSet;
use std::fmt;

use clap::ValueEnum;
use holdfast_sim::random::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Fault {
    /// kill -9, and a restart
    Kill,
    /// SIGTERM, and a restart
    Stop,
    /// SIGSTOP, and SIGCONT
    Freeze,
    /// The nodes fall into two parts that don't hear each other
    Split,
    /// One node hears all, and the rest falls into two parts
    Bridge,
    /// Some nodes are not heard by the others, and hear them; or the other way round
    OneWay,
    /// Packets between nodes are lost at random
    Loss,
    /// Nodes send slowly
    Slow,
    /// Packets between nodes come late, and in another order
    Delay,
    /// Connections between nodes end in the middle of what they carry
    Reset,
    /// A power cut: what was not synced is lost, kept or torn; then a restart
    Power,
    /// Syncs fail (EIO), then a restart, or a power cut
    SyncError,
    /// Writes to the disk fail (EIO), then a restart, or a power cut
    WriteError,
    /// Reads from the disk fail (EIO), then a restart, or a power cut
    ReadError,
    /// The disk is full (ENOSPC), then a restart
    Full,
    /// Syncs take seconds
    Stall,
}

impl Fault {
    /// How likely each is beside the others.
    fn weight(self) -> u32 {
        match self {
            Fault::Power => 22,
            Fault::Kill => 12,
            Fault::Split => 10,
            Fault::OneWay | Fault::Freeze => 8,
            Fault::Bridge | Fault::SyncError | Fault::Stall => 6,
            Fault::Stop | Fault::Loss | Fault::Slow | Fault::Delay | Fault::Full => 5,
            Fault::Reset => 4,
            Fault::WriteError | Fault::ReadError => 3,
        }
    }

    /// Whether it is the network's.
    pub fn is_network(self) -> bool {
        matches!(
            self,
            Fault::Split | Fault::Bridge | Fault::OneWay | Fault::Loss | Fault::Slow | Fault::Delay | Fault::Reset
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Who suffers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Victims {
    /// The leader.
    Leader,
    /// A node that does not lead.
    Follower,
    /// As many as may be missing.
    Minority,
    /// One more than that, the leader among them or not.
    Majority,
    /// Everybody.
    All,
}

impl fmt::Display for Victims {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Victims::Leader => "leader",
            Victims::Follower => "follower",
            Victims::Minority => "minority",
            Victims::Majority => "majority",
            Victims::All => "all",
        })
    }
}

/// One fault of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What goes wrong.
    pub fault: Fault,
    /// To whom.
    pub victims: Victims,
    /// For how long at least, in milliseconds.
    pub hold_ms: u64,
}

impl Step {
    /// The step's name in tables.
    pub fn name(&self) -> String {
        format!("{} {}", self.fault, self.victims)
    }

    /// Draws one of these kinds.
    ///
    /// # Panics
    /// If there are none.
    pub fn draw(random: &mut Random, kinds: &[Fault]) -> Step {
        let weights: Vec<u32> = kinds.iter().map(|fault| fault.weight()).collect();
        let fault = kinds[random.weighted(&weights)];
        let all = [Victims::Leader, Victims::Follower, Victims::Minority, Victims::Majority, Victims::All];
        let weights: &[u32] = match fault {
            Fault::Kill | Fault::Freeze | Fault::Power => &[35, 20, 10, 20, 15],
            Fault::Stop | Fault::Stall => &[50, 20, 10, 10, 10],
            Fault::Split | Fault::OneWay => &[50, 20, 30, 0, 0],
            Fault::Bridge => &[0, 0, 0, 0, 1],
            Fault::Loss | Fault::Slow | Fault::Delay | Fault::Reset => &[30, 20, 20, 0, 30],
            // Promises that are broken on a majority are nobody's to keep: a disk that fails is a minority's trouble.
            Fault::SyncError | Fault::WriteError | Fault::ReadError => &[60, 40, 0, 0, 0],
            Fault::Full => &[60, 30, 10, 0, 0],
        };
        let victims = all[random.weighted(weights)];
        // Longer than the election timeout, or shorter.
        let hold_ms = if random.chance(250) { random.range(20..=400) } else { random.range(500..=4000) };
        Step { fault, victims, hold_ms }
    }

    /// Draws the nodes that suffer it, of nodes 1 to `nodes`.
    pub fn victims(&self, random: &mut Random, nodes: usize, leader: usize) -> BTreeSet<usize> {
        let mut followers: Vec<usize> = (1..=nodes).filter(|node| *node != leader).collect();
        random.shuffle(&mut followers);
        let minority = (nodes - 1) / 2;
        let some = |count: usize, with_leader: bool| {
            let leaders = with_leader.then_some(leader);
            leaders.into_iter().chain(followers.iter().copied()).take(count).collect()
        };
        match self.victims {
            Victims::Leader => BTreeSet::from([leader]),
            Victims::Follower => some(1, false),
            Victims::Minority => some(minority.max(1), random.chance(500)),
            Victims::Majority => some(minority + 1, random.chance(700)),
            Victims::All => (1..=nodes).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_drawn_and_victims_are_as_many_as_said() {
        let kinds = Fault::value_variants();
        let mut random = Random::new(1);
        let mut seen = BTreeSet::new();
        for _ in 0..3000 {
            let step = Step::draw(&mut random, kinds);
            seen.insert(step.fault);
            let victims = step.victims(&mut random, 5, 2);
            let expected = match step.victims {
                Victims::Leader | Victims::Follower => 1,
                Victims::Minority => 2,
                Victims::Majority => 3,
                Victims::All => 5,
            };
            assert_eq!(victims.len(), expected, "{step:?}");
            assert_eq!(victims.contains(&2), victims.contains(&2) && step.victims != Victims::Follower);
        }
        assert_eq!(seen.len(), kinds.len());
    }
}
