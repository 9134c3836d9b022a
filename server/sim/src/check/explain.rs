//! Why there is no order, in words.
//!
//! A history of thousands of operations is no explanation. What helps is the place where every order ends: the longest
//! order that could be found, what the key holds after it, and the operations that would have to come next, none of which
//! can.

use std::fmt;

use super::history::{Call, History, Outcome};
use super::model::Text;
use super::search::Search;

/// How many operations of the order are shown: the last ones.
const SHOWN_MAX: usize = 12;

/// An operation that would have to come next, and can't.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The operation.
    pub call: Call,
    /// Whether its answer is true of the value at this point. It can't come next all the same: then others can't follow.
    pub fits_here: bool,
}

/// A key whose operations have no order that explains what the clients saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key.
    pub key: Vec<u8>,
    /// The operations on the key that were answered.
    pub answered: usize,
    /// The longest order of operations that explains their answers; the first of them may be left out.
    pub order: Vec<Call>,
    /// What the key holds after it.
    pub value: Option<Text>,
    /// The answered operations, one of which would have to come next.
    pub misfits: Vec<Misfit>,
    /// A part of the history, as short as could be found, that has no order either. Empty before [`Violation::shorten`].
    pub shortest: Vec<Call>,
}

/// Explains a search in vain.
pub(super) fn explain(key: &[u8], calls: &[Call], search: &Search) -> Violation {
    let places = search.longest_order();
    let mut placed = vec![false; calls.len()];
    for place in &places {
        placed[*place] = true;
    }
    let answered = |call: &&Call| matches!(call.outcome, Outcome::Answered(_));
    let open: Vec<&Call> = calls.iter().zip(&placed).filter(|(_, placed)| !**placed).map(|(call, _)| call).collect();
    let horizon = open.iter().filter_map(|call| call.returned_at).min().unwrap_or(u64::MAX);
    let value = search.longest_order_value();
    let misfits = open
        .iter()
        .filter(|call| answered(call) && call.called_at < horizon)
        .map(|call| Misfit { call: (*call).clone(), fits_here: super::search::fits(value.as_ref(), call) })
        .collect();
    Violation {
        key: key.to_vec(),
        answered: calls.iter().filter(answered).count(),
        order: places.iter().map(|place| calls[*place].clone()).collect(),
        value,
        misfits,
        shortest: Vec::new(),
    }
}

impl Violation {
    /// Looks for a short part of the history that has no order either. It takes up to a few seconds.
    pub fn shorten(&mut self, history: &History) {
        if let Some(calls) = history.by_key().get(&self.key[..]) {
            self.shortest = super::minimal::shorten(calls);
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "not linearizable: key {}, {} operations with an answer",
            Text::from(&self.key[..]),
            self.answered
        )?;
        writeln!(formatter, "the longest order that explains the answers has {} operations:", self.order.len())?;
        let left_out = self.order.len().saturating_sub(SHOWN_MAX);
        if left_out > 0 {
            writeln!(formatter, "  … {left_out} more before these")?;
        }
        for call in &self.order[left_out..] {
            writeln!(formatter, "  {call}")?;
        }
        match &self.value {
            Some(value) => writeln!(formatter, "after it the key holds {value}")?,
            None => writeln!(formatter, "after it there is no such key")?,
        }
        writeln!(formatter, "one of these would have to come next, and none can:")?;
        for misfit in &self.misfits {
            let reason =
                if misfit.fits_here { "(its answer fits here; what follows then does not)" } else { "(wrong here)" };
            writeln!(formatter, "  {} {reason}", misfit.call)?;
        }
        if self.shortest.is_empty() {
            return Ok(());
        }
        let answered: Vec<&Call> =
            self.shortest.iter().filter(|call| matches!(call.outcome, Outcome::Answered(_))).collect();
        writeln!(
            formatter,
            "these {} have no order either, whether or not {} others happened at any time after they were asked for:",
            answered.len(),
            self.shortest.len() - answered.len()
        )?;
        answered.iter().try_for_each(|call| writeln!(formatter, "  {call}"))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = Seconds(Some(self.called_us));
        let returned = Seconds(self.returned_us);
        let old = if self.may_be_old { " of any time before" } else { "" };
        write!(formatter, "{called} to {returned}  client {:<3} {}{old}", self.client, self.operation)?;
        match &self.outcome {
            Outcome::Answered(answer) => write!(formatter, ": {answer}"),
            Outcome::Unknown => write!(formatter, ": outcome unknown"),
            Outcome::Failed => write!(formatter, ": refused"),
        }
    }
}

/// A time in columns that line up.
struct Seconds(Option<u64>);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(us) => write!(formatter, "{:>5}.{:06} s", us / 1_000_000, us % 1_000_000),
            None => write!(formatter, "{:>14}", "never"),
        }
    }
}
