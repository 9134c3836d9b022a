//! The shortest part of a history that can't be ordered either.
//!
//! A key's history has a hundred operations, and a violation concerns three or four of them. What can be left out without
//! making a history wrong that was right:
//!
//! 1. what was called after some moment, and the answers that came after it: what clients saw up to any moment must have an order;
//! 2. a read, since it changes nothing;
//! 3. the answer of a write, which then may have happened at any later time or never: fewer demands.
//!
//! So whatever still has no order afterwards proves that the whole has none. A write can't be left out altogether: others may have
//! seen it.

use super::history::{Call, Outcome};
use super::model::Operation;
use super::search::{Found, Search};

/// Steps of one attempt. An attempt that needs more counts as one that failed to show anything.
const STEPS_MAX: u64 = 200_000;
/// Steps of all attempts together.
const STEPS_IN_ALL_MAX: u64 = 20_000_000;

/// Makes a history of one key, which has no order, as short as it can.
pub(super) fn shorten(calls: &[Call]) -> Vec<Call> {
    let mut attempts = Attempts { steps_left: STEPS_IN_ALL_MAX };
    let mut kept = shortest_prefix(calls, &mut attempts);
    // From the end: what is early is often what the rest rests on.
    let mut place = kept.len();
    while place > 0 {
        place -= 1;
        if !matches!(kept[place].outcome, Outcome::Answered(_)) {
            continue;
        }
        let mut shorter = kept.clone();
        if shorter[place].operation == Operation::Get {
            shorter.remove(place);
        } else {
            forget_answer(&mut shorter[place]);
        }
        if attempts.has_no_order(&shorter) {
            kept = shorter;
        }
    }
    kept.retain(|call| call.operation != Operation::Get || matches!(call.outcome, Outcome::Answered(_)));
    kept
}

struct Attempts {
    steps_left: u64,
}

impl Attempts {
    fn has_no_order(&mut self, calls: &[Call]) -> bool {
        if self.steps_left == 0 {
            return false;
        }
        let mut search = Search::new(calls, STEPS_MAX.min(self.steps_left));
        let found = search.run();
        self.steps_left = self.steps_left.saturating_sub(search.steps().max(1));
        matches!(found, Found::NoOrder)
    }
}

/// What was seen up to the earliest return after which there is no order any more.
fn shortest_prefix(calls: &[Call], attempts: &mut Attempts) -> Vec<Call> {
    let mut returns: Vec<u64> = calls.iter().filter_map(|call| call.returned_at).collect();
    returns.sort_unstable();
    // Up to `returns[high]` there is no order; a longer prefix can't have one either.
    let (mut low, mut high) = (0, returns.len().saturating_sub(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if attempts.has_no_order(&up_to(calls, returns[middle])) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    returns.get(high).map_or_else(|| calls.to_vec(), |place| up_to(calls, *place))
}

fn up_to(calls: &[Call], place: u64) -> Vec<Call> {
    let mut prefix: Vec<Call> = calls.iter().filter(|call| call.called_at <= place).cloned().collect();
    for call in &mut prefix {
        if call.returned_at.is_some_and(|returned_at| returned_at > place) {
            forget_answer(call);
        }
    }
    prefix
}

fn forget_answer(call: &mut Call) {
    (call.outcome, call.returned_at, call.returned_us) = (Outcome::Unknown, None, None);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Answer, History, Text};

    #[test]
    fn stale_read_among_many_operations_is_shown_by_three() {
        let mut history = History::new();
        let mut now = 0;
        let mut done = |operation: Operation, answer: Answer| {
            now += 10;
            let id = history.call(now, 1, b"key", operation);
            now += 10;
            history.finish(now, id, Outcome::Answered(answer));
        };
        let text = |number: u32| Text::from(number.to_string().as_str());
        for number in 0..40 {
            done(Operation::Set(text(number)), Answer::Done);
            done(Operation::Get, Answer::Value(Some(text(number))));
        }
        done(Operation::Get, Answer::Value(Some(text(7))));
        done(Operation::Set(text(100)), Answer::Done);
        let calls = history.by_key().remove(&b"key"[..]).unwrap();
        let short = shorten(&calls);
        let answered: Vec<&Call> = short.iter().filter(|call| call.returned_at.is_some()).collect();
        assert!(answered.len() <= 4, "{answered:?}");
        assert_eq!(answered.last().unwrap().outcome, Outcome::Answered(Answer::Value(Some(text(7)))));
        assert!(!short.iter().any(|call| call.operation == Operation::Set(text(100))));
    }
}
