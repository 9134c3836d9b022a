//! Values that are there when their time is over.
//!
//! ```text
//!   set v, for 300 ms ├──────┤
//!                            └── 300 ms ──┬── as far as clocks differ ──┐
//!                                         ╵                             ├ asked from here on, nobody may find v
//! ```
//!
//! Who finds the value may give it another deadline; then it has until the last of them. Whoever is asked compares deadlines with its own clock, so what nodes' clocks differ by is all that may be added. Whether a write
//! without an answer was done at once or much later nobody knows: such a value has no latest end, nor have those of a key whose deadlines
//! may have been moved without an answer. Neither is a read judged that may show what is old.

use std::collections::HashMap;
use std::fmt;

use super::history::{Call, Lapse, Outcome};
use super::model::{Operation, Text};

/// A value that somebody found when its time was over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlived {
    /// The key.
    pub key: Vec<u8>,
    /// What stored the value.
    pub stored: Call,
    /// What found it.
    pub found: Call,
    /// When its time was over at the latest, in microseconds.
    pub until_us: u64,
}

/// Looks for a value of the key that was found too late.
pub(super) fn outlived(key: &[u8], calls: &[Call]) -> Option<Outlived> {
    let lapsing = calls.iter().filter_map(|call| {
        let Lapse { span_us, error_us } = call.lapse?;
        Some((call, call.returned_us.unwrap_or(u64::MAX).saturating_add(span_us).saturating_add(error_us)))
    });
    let mut ends: HashMap<&Text, (&Call, u64)> = HashMap::new();
    for (call, until_us) in lapsing.clone().filter(|(call, _)| matches!(call.outcome, Outcome::Answered(_))) {
        if let Some(value) = call.stored() {
            ends.insert(value, (call, until_us));
        }
    }
    for (call, until_us) in lapsing.filter(|(call, _)| call.operation == Operation::Get) {
        if !matches!(call.outcome, Outcome::Answered(_)) {
            return None;
        }
        if let Some((_, end_us)) = call.found().and_then(|value| ends.get_mut(value)) {
            *end_us = until_us.max(*end_us);
        }
    }
    calls.iter().filter(|call| !call.may_be_old).find_map(|call| {
        let (stored, until_us) = *ends.get(call.found()?)?;
        (call.called_us > until_us).then(|| Outlived {
            key: key.to_vec(),
            stored: stored.clone(),
            found: call.clone(),
            until_us,
        })
    })
}

impl fmt::Display for Outlived {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outlived { key, stored, found, until_us } = self;
        let until = crate::time::Shown(*until_us);
        writeln!(
            formatter,
            "a value of key {} outlived its deadline, which was {until} s at the latest:",
            Text::from(&key[..])
        )?;
        writeln!(formatter, "  {stored}")?;
        writeln!(formatter, "  {found}")
    }
}
