//! What the rounds so far have left in the cluster, and must find there for ever.
//!
//! A round's history is judged when the round ends, and can be forgotten but for two things: what each key held at the end,
//! and the writes on it whose outcome nobody knows, which may still happen. Every later round reads the key again, on every
//! node. What is found must be what was there; if it isn't, a late write must explain it, which the checker decides.

use std::collections::BTreeMap;

use holdfast_bench::connection::Connection;
use holdfast_bench::crash::Reader;
use holdfast_sim::check::{self, Answer, History, Operation, Outcome, Text, Verdict};

/// Keys that are asked for at once.
const KEYS_PER_READ: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Option<Text>,
    /// Writes that may still happen.
    open: Vec<Operation>,
}

/// All keys of all rounds.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl Ledger {
    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Enters what a history ends with. Each of its keys must have been read after everything else had
    /// ended.
    pub fn enter(&mut self, history: &History) {
        for (key, call) in history.calls() {
            let entry = self.entries.entry(key.to_vec()).or_insert(Entry { value: None, open: Vec::new() });
            match (&call.operation, &call.outcome) {
                (Operation::Get, Outcome::Answered(Answer::Value(value))) => entry.value.clone_from(value),
                (Operation::Get, _) | (_, Outcome::Answered(_) | Outcome::Failed) => {}
                (operation, Outcome::Unknown) => entry.open.push(operation.clone()),
            }
        }
    }

    /// Compares a node with the ledger; gives how many keys had changed by a late write.
    ///
    /// # Errors
    /// The story, if something is lost or invented, or the node can't be read.
    pub fn check(&mut self, connection: &mut Connection) -> Result<u64, String> {
        let mut late = 0;
        let keys: Vec<Vec<u8>> = self.entries.keys().cloned().collect();
        for keys in keys.chunks(KEYS_PER_READ) {
            for (key, found) in keys.iter().zip(connection.read(keys)?) {
                let Some(entry) = self.entries.get_mut(key) else { continue };
                let found = found.map(Text::from);
                if found != entry.value {
                    entry.explain(key, found)?;
                    late += 1;
                }
            }
        }
        Ok(late)
    }
}

impl Entry {
    /// Is there an order of late writes that leads to this value?
    fn explain(&mut self, key: &[u8], found: Option<Text>) -> Result<(), String> {
        let mut history = History::new();
        let before = match &self.value {
            Some(value) => Operation::Set(value.clone()),
            None => Operation::Get,
        };
        let call = history.call(0, 0, key, before);
        let answer = if self.value.is_some() { Answer::Done } else { Answer::Value(None) };
        history.finish(0, call, Outcome::Answered(answer));
        for operation in &self.open {
            history.call(0, 1, key, operation.clone());
        }
        let call = history.call(0, 2, key, Operation::Get);
        history.finish(0, call, Outcome::Answered(Answer::Value(found.clone())));
        match check::check(&history, check::STEPS_MAX) {
            Verdict::Linearizable => {
                self.value = found;
                Ok(())
            }
            verdict => Err(format!("a key of an earlier round has changed: {verdict}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str, open: &[&str]) -> Entry {
        Entry { value: Some(value.into()), open: open.iter().map(|text| Operation::Append((*text).into())).collect() }
    }

    #[test]
    fn late_writes_explain_a_change_and_nothing_else_does() {
        assert!(entry("a", &["b", "c"]).explain(b"k", Some("acb".into())).is_ok());
        assert!(entry("a", &["b"]).explain(b"k", Some("abb".into())).is_err());
        assert!(entry("a", &["b"]).explain(b"k", None).is_err());
        assert!(entry("a", &[]).explain(b"k", Some("older".into())).is_err());
    }

    #[test]
    fn what_a_history_ends_with_is_entered() {
        let mut history = History::new();
        let set = history.call(0, 1, b"k", Operation::Set("v".into()));
        history.finish(1, set, Outcome::Answered(Answer::Done));
        history.call(2, 2, b"k", Operation::Append("w".into()));
        let get = history.call(3, 1, b"k", Operation::Get);
        history.finish(4, get, Outcome::Answered(Answer::Value(Some("v".into()))));
        let mut ledger = Ledger::default();
        ledger.enter(&history);
        assert_eq!(ledger.entries[&b"k"[..]], entry("v", &["w"]));
    }
}
