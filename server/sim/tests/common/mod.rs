//! What the scripted tests look at when a script is through.

use std::collections::BTreeMap;

use holdfast_client::Value;
use holdfast_sim::check::{Answer, Operation, Outcome};
use holdfast_sim::world::Report;

/// Nothing was broken, and every key's history is linearizable.
#[track_caller]
pub(crate) fn assert_clean(report: &Report) {
    let violations = &report.summary.violations;
    assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), report.summary.notes);
    assert!(report.summary.operations.answered > 0, "nobody was answered");
}

/// A reply's text.
#[track_caller]
pub(crate) fn text(value: &Value) -> String {
    let bytes = value.as_bytes().unwrap_or_else(|| panic!("{value:?} is no text"));
    String::from_utf8_lossy(bytes).into_owned()
}

/// Of each key that was appended to, what was read last: each append that was answered is in it once, in the order in which its
/// client made it, and none that was refused. Says how many were answered before that read.
#[track_caller]
pub(crate) fn own_appends_are_there_once_and_in_order(report: &Report) -> usize {
    let mut last_read: BTreeMap<&[u8], (u64, String)> = BTreeMap::new();
    for (key, call) in report.history.calls() {
        if let (Operation::Get, Outcome::Answered(Answer::Value(value))) = (&call.operation, &call.outcome) {
            let bytes = value.as_ref().map(|value| value.as_bytes()).unwrap_or_default();
            last_read.insert(key, (call.called_us, String::from_utf8_lossy(bytes).into_owned()));
        }
    }
    let mut places: BTreeMap<(&[u8], u32), usize> = BTreeMap::new();
    let mut answered = 0;
    for (key, call) in report.history.calls() {
        let Operation::Append(piece) = &call.operation else { continue };
        let piece = String::from_utf8_lossy(piece.as_bytes());
        // NB: `1.1;` is also the end of `11.1;`.
        let (read_at, read) = last_read.get(key).unwrap_or_else(|| panic!("{} was never read", key.escape_ascii()));
        let found: Vec<usize> =
            read.match_indices(&*piece).map(|(at, _)| at).filter(|at| *at == 0 || read[..*at].ends_with(';')).collect();
        match call.outcome {
            Outcome::Answered(_) if call.returned_us.is_some_and(|returned| returned <= *read_at) => {
                assert_eq!(found.len(), 1, "{piece} is {} times in {read}", found.len());
                let before = places.insert((key, call.client), found[0]);
                assert!(before.is_none_or(|before| before < found[0]), "{piece} is too early in {read}");
                answered += 1;
            }
            Outcome::Failed => assert!(found.is_empty(), "{piece} was refused, and is in {read}"),
            _ => assert!(found.len() <= 1, "{piece} is {} times in {read}", found.len()),
        }
    }
    answered
}
