//! A checker that is obviously right: it tries every order. Its model is written on its own, over plain bytes.

use super::super::*;

/// What a key holds after an operation, and every answer that is true of it.
pub(super) fn outcomes(before: Option<&[u8]>, operation: &Operation) -> (Option<Vec<u8>>, Vec<Answer>) {
    let old = Answer::Value(before.map(Text::from));
    let same = before.map(<[u8]>::to_vec);
    let refused = || match before {
        Some(_) => vec![old.clone(), Answer::Refused, Answer::Different],
        None => vec![old.clone(), Answer::Refused, Answer::Absent],
    };
    match operation {
        Operation::Get => (same, vec![old]),
        Operation::Set(value) => (Some(value.as_bytes().to_vec()), vec![old, Answer::Done]),
        Operation::CompareAndSet { expected, new } => {
            if before == expected.as_ref().map(Text::as_bytes) {
                (Some(new.as_bytes().to_vec()), vec![old, Answer::Done])
            } else {
                (same, refused())
            }
        }
        Operation::Delete if before.is_none() => (None, refused()),
        Operation::Delete => (None, vec![old, Answer::Done]),
        Operation::CompareAndDelete { expected } | Operation::Lapse(expected) => {
            if before == Some(expected.as_bytes()) { (None, vec![old, Answer::Done]) } else { (same, refused()) }
        }
        Operation::Increment(by) => {
            let text = String::from_utf8(before.unwrap_or(b"0").to_vec()).unwrap();
            // "01" is no number to Redis.
            let number = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            match number.and_then(|number| number.checked_add(*by)) {
                Some(sum) => (Some(sum.to_string().into_bytes()), vec![Answer::Number(sum)]),
                None => (same, vec![]),
            }
        }
        Operation::Append(suffix) => {
            let value = [before.unwrap_or_default(), suffix.as_bytes()].concat();
            let length = value.len() as u64;
            (Some(value), vec![Answer::Length(length)])
        }
    }
}

/// Whether there is an order of the calls that explains every answer, by trying all of them.
pub(super) fn is_linearizable(calls: &[Call]) -> bool {
    let mut left: Vec<&Call> = calls.iter().filter(|call| call.outcome != Outcome::Failed).collect();
    try_all(None, &mut left)
}

fn try_all(state: Option<&[u8]>, left: &mut Vec<&Call>) -> bool {
    if left.iter().all(|call| call.returned_at.is_none()) {
        return true;
    }
    for place in 0..left.len() {
        let call = left[place];
        let waits = left.iter().any(|other| other.returned_at.is_some_and(|returned| returned < call.called_at));
        if waits {
            continue;
        }
        let (after, answers) = outcomes(state, &call.operation);
        if let Outcome::Answered(answer) = &call.outcome
            && !answers.contains(answer)
        {
            continue;
        }
        left.remove(place);
        let found = try_all(after.as_deref(), left);
        left.insert(place, call);
        if found {
            return true;
        }
    }
    false
}
