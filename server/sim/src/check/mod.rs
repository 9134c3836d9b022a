//! Is what the clients saw linearizable?
//!
//! A history is linearizable if each operation can be given one instant between its call and its return so that, done one
//! at a time in the order of those instants on a single copy of the data, every operation gives the answer that its
//! client got. It is the promise that Holdfast makes, and the only oracle that needs no knowledge of how it is kept.
//!
//! ```text
//!   workload ──▶ History ──▶ one Search per key ──▶ Verdict
//!    (calls,     (calls and    (model: what an       Linearizable, or Violation with an explanation,
//!     returns)    outcomes)     operation may do)    or Undecided: out of budget, which never counts as passed
//! ```
//!
//! - Linearizability is local: a history is linearizable if and only if its part for each key is. So keys are checked
//!   one by one, and operations on several keys at once are not part of a history.
//! - An operation whose outcome is *unknown* (no answer came) may have taken effect at any time after its call, or
//!   never. One that *failed* for certain is no part of the history: if it took effect all the same, others see a value
//!   that nobody wrote, and that is found.
//! - A value with a deadline may go away by itself from some time on. To the search that is one more operation of unknown outcome,
//!   which deletes this value and no other: so it finds values that go too soon, and values that come back. That one stays
//!   too long is looked for beside (`deadlines.rs`).
//! - The search is exponential in the worst case (the problem is NP-complete), so it has a budget of steps.
//!
//! The pieces: [`Operation`] and [`Answer`] in `model.rs`, [`History`] in `history.rs`, the algorithm in `search.rs`, what of a history
//! shows a violation in `minimal.rs`, and the words for people in `explain.rs`.

mod deadlines;
mod explain;
mod history;
mod minimal;
mod model;
mod search;
#[cfg(test)]
mod tests;

use std::fmt;

pub use deadlines::Outlived;
pub use explain::{Misfit, Violation};
pub use history::{Call, History, Lapse, OperationId, Outcome};
pub use model::{Answer, Operation, Text};

/// Steps per key that are plenty for what the simulator's workload makes: a few thousand operations of a dozen clients.
/// They take a second or two, and the memory of a search grows with them.
pub const STEPS_MAX: u64 = 20_000_000;

/// What the checker makes of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order of the operations that explains every answer.
    Linearizable,
    /// There is none.
    Violation(Box<Violation>),
    /// A value was there when its time was long over.
    Outlived(Box<Outlived>),
    /// The budget ran out before either was shown. This is no pass.
    Undecided {
        /// The key whose history is too hard.
        key: Vec<u8>,
        /// The steps that were spent on it.
        steps: u64,
    },
}

impl Verdict {
    /// Whether the history was shown to be linearizable.
    pub fn is_pass(&self) -> bool {
        *self == Verdict::Linearizable
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Linearizable => formatter.write_str("linearizable"),
            Verdict::Violation(violation) => violation.fmt(formatter),
            Verdict::Outlived(outlived) => outlived.fmt(formatter),
            Verdict::Undecided { key, steps } => write!(
                formatter,
                "undecided: the operations on {} could be neither ordered nor shown impossible in {steps} steps",
                Text::from(&key[..])
            ),
        }
    }
}

/// Checks every key of a history, each with a budget of `steps_max` steps. Stops at the first violation; a key that could
/// not be decided is reported only if no other key shows a violation.
pub fn check(history: &History, steps_max: u64) -> Verdict {
    let mut undecided = None;
    for (key, calls) in history.by_key() {
        match check_key(key, &calls, steps_max) {
            Verdict::Linearizable => {}
            verdict @ (Verdict::Violation(_) | Verdict::Outlived(_)) => return verdict,
            verdict @ Verdict::Undecided { .. } => undecided = undecided.or(Some(verdict)),
        }
    }
    undecided.unwrap_or(Verdict::Linearizable)
}

/// Checks the operations on one key.
fn check_key(key: &[u8], calls: &[Call], steps_max: u64) -> Verdict {
    if let Some(outlived) = deadlines::outlived(key, calls) {
        return Verdict::Outlived(Box::new(outlived));
    }
    let mut search = search::Search::new(calls, steps_max);
    match search.run() {
        search::Found::Order => Verdict::Linearizable,
        search::Found::OutOfBudget => Verdict::Undecided { key: key.to_vec(), steps: search.steps() },
        search::Found::NoOrder => Verdict::Violation(Box::new(explain::explain(key, calls, &search))),
    }
}
