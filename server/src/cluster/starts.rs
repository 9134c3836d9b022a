//! The starts of a node: what tells a node from an older copy of itself.
//!
//! # Motive
//! A node's votes and acknowledgements are promises that its disk keeps. A folder that was rolled back (a restored backup, a
//! virtual machine's snapshot, a copied disk) has forgotten some, and its node would vote twice in a term or lack what it
//! acknowledged, and not know. So whoever hears a node remembers its newest start, and hears it again only if that start is in
//! its past.
//!
//! ```text
//!   folder ─▶ Starts: boot number, random numbers of the last 16 starts ─▶ hello ─▶ Starts::check(remembered) ─▶ heard, or not
//! ```
//!
//! # Caveats
//! - A copy that is taken and put back between two starts of a folder shows nothing here: what it lacks then shows only when it
//!   turns out to lack what it acknowledged. See `docs/src/design/fault-model.md`.
//! - A start that nobody ever heard of is remembered by nobody. It has promised nothing to anybody either.

use std::fmt;

/// One start of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// How often its folder had been opened with it.
    pub boot: u64,
    /// Its random number. [`Start::VOID`]: no start of the node is heard any more.
    pub run: u64,
}

impl Start {
    /// In place of a start's random number: the node was caught having lost what it promised.
    pub const VOID: u64 = 0;

    /// Whether this is worth remembering in place of `known`.
    pub fn supersedes(self, known: Option<Start>) -> bool {
        let Some(known) = known else { return true };
        match (self.run, known.run) {
            (_, Start::VOID) => false,
            (Start::VOID, _) => true,
            _ => self.boot > known.boot,
        }
    }
}

/// What a node says of its starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Starts {
    /// How often its folder was opened.
    pub boot: u64,
    /// The random numbers of its last starts, the present one first.
    pub runs: Vec<u64>,
}

/// Why a node is not heard any more: its folder is not the one that made the promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromiseLost {
    /// Its folder counts fewer starts than are remembered.
    Behind {
        /// What it counts.
        boot: u64,
        /// What is remembered.
        known: u64,
    },
    /// A start is remembered that is not in its folder's past: two copies of the folder were started.
    Copy {
        /// The number that both starts have.
        boot: u64,
    },
    /// It was found to lack entries that it had acknowledged.
    Void,
}

impl fmt::Display for PromiseLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PromiseLost::Behind { boot, known } => write!(
                f,
                "its data folder is older than what the cluster remembers: it counts {boot} starts, the cluster has seen {known}"
            ),
            PromiseLost::Copy { boot } => write!(
                f,
                "its data folder is a copy: the cluster remembers another start with the number {boot} than the folder does"
            ),
            PromiseLost::Void => {
                write!(
                    f,
                    "its data folder lacked entries that the node had acknowledged: its disk lost what was synced"
                )
            }
        }
    }
}

impl PromiseLost {
    /// What it means for a node and what to do about it, for the operator.
    pub fn explain(self, node: super::NodeId) -> String {
        format!(
            "node {node} may not vote, lead or serve, since {self}; stop it, have the cluster forget it (kvctl node remove {node}), remove its \
             data folder, and let the machine join anew (holdfast join)"
        )
    }
}

impl Starts {
    /// The present start; none if this says nothing.
    pub fn present(&self) -> Option<Start> {
        self.runs
            .first()
            .filter(|run| **run != Start::VOID && self.boot > 0)
            .map(|run| Start { boot: self.boot, run: *run })
    }

    /// Whether a start that is remembered is the present one, or one of the folder's past.
    ///
    /// # Errors
    /// Why the node must not be heard.
    pub fn check(&self, known: Start) -> Result<(), PromiseLost> {
        if known.run == Start::VOID {
            return Err(PromiseLost::Void);
        }
        let Some(ago) = self.boot.checked_sub(known.boot) else {
            return Err(PromiseLost::Behind { boot: self.boot, known: known.boot });
        };
        match usize::try_from(ago).ok().and_then(|ago| self.runs.get(ago)) {
            Some(run) if *run != known.run => Err(PromiseLost::Copy { boot: known.boot }),
            // NB: also for a start so long ago that the folder has forgotten it.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that was started so often; its starts have the numbers 100 + n.
    fn folder(boot: u64) -> Starts {
        Starts { boot, runs: (1..=boot).rev().take(16).map(|n| 100 + n).collect() }
    }

    #[test]
    fn folder_goes_on_from_what_is_remembered() {
        let known = Start { boot: 5, run: 105 };
        for boot in 5..40 {
            assert_eq!(folder(boot).check(known), Ok(()), "boot {boot}");
        }
        assert_eq!(folder(5).present(), Some(known));
        assert_eq!(Starts::default().present(), None);
    }

    #[test]
    fn older_folder_is_found_out() {
        let known = Start { boot: 5, run: 105 };
        assert_eq!(folder(4).check(known), Err(PromiseLost::Behind { boot: 4, known: 5 }));
        assert!(Starts::default().check(known).is_err());
    }

    #[test]
    fn older_folder_is_found_out_however_often_it_is_started() {
        let known = Start { boot: 5, run: 105 };
        // Restored as it was at its third start, and started again and again.
        let mut restored = folder(3);
        for run in 900..910 {
            restored.boot += 1;
            restored.runs.insert(0, run);
            assert!(restored.check(known).is_err(), "boot {}", restored.boot);
        }
    }

    #[test]
    fn second_copy_is_found_out() {
        let copy = Starts { boot: 5, runs: vec![777, 104, 103] };
        assert_eq!(copy.check(Start { boot: 4, run: 104 }), Ok(()), "their common past");
        assert_eq!(copy.check(Start { boot: 5, run: 105 }), Err(PromiseLost::Copy { boot: 5 }));
    }

    #[test]
    fn node_that_was_caught_is_never_heard_again() {
        let void = Start { boot: 5, run: Start::VOID };
        for boot in [4, 5, 6, 100] {
            assert_eq!(folder(boot).check(void), Err(PromiseLost::Void));
        }
        let start = |boot| Start { boot, run: 100 + boot };
        assert!(void.supersedes(Some(start(9))) && !start(9).supersedes(Some(void)));
        assert!(
            start(2).supersedes(None) && start(3).supersedes(Some(start(2))) && !start(2).supersedes(Some(start(2)))
        );
    }

    #[test]
    fn refusal_says_what_to_do() {
        let text = PromiseLost::Behind { boot: 4, known: 7 }.explain(3);
        for part in ["node 3", "counts 4 starts", "has seen 7", "holdfast join", "kvctl node remove 3"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
