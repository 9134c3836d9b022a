//! Histories that are linearizable by construction: every operation is given its instant first, and its answer is what a
//! single copy gives at that instant.

use super::super::*;
use super::reference::outcomes;
use crate::random::Random;

pub(super) const KEY: &[u8] = b"k";

/// What kind of history to make.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) clients: u32,
    pub(super) operations: usize,
    /// Operations without an answer, of a thousand.
    pub(super) unknown_per_mille: u32,
    /// How long an operation takes at most; clients pause for about as long.
    pub(super) duration_max: u64,
    pub(super) mix: Mix,
}

/// Which operations there are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mix {
    /// Reads and all kinds of conditional and blind writes of few values that come again.
    FewValues,
    /// The same where no value is written twice.
    UniqueValues,
    /// Increments, by one mostly, and reads.
    Counter,
    /// Appends of unique pieces, and reads.
    Log,
}

/// An operation with its instants: called, takes effect, returns. Times are distinct enough that a call comes before the
/// effect and the effect before the return.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) client: u32,
    pub(super) called: u64,
    pub(super) returned: u64,
    effect: Option<u64>,
    pub(super) operation: Operation,
    pub(super) outcome: Outcome,
}

/// Makes a history.
pub(super) fn make(random: &mut Random, shape: Shape) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut free_at: Vec<u64> = (0..shape.clients).map(|_| random.below(shape.duration_max)).collect();
    for _ in 0..shape.operations {
        let client = random.index(free_at.len());
        let called = free_at[client];
        let returned = called + random.below(shape.duration_max);
        let mut effect = Some(random.range(called..=returned));
        let mut outcome = Outcome::Failed;
        if random.chance(shape.unknown_per_mille) {
            outcome = Outcome::Unknown;
            effect = if random.chance(500) { Some(called + random.below(6 * shape.duration_max)) } else { None };
        }
        free_at[client] = returned + 1 + random.below(shape.duration_max);
        let (client, effect) = (client as u32, effect.map(|at| 3 * at + 1));
        let operation = Operation::Get;
        planned.push(Planned { client, called: 3 * called, returned: 3 * returned + 2, effect, operation, outcome });
    }
    fill_in(random, shape.mix, &mut planned);
    planned
}

/// Draws the operations in the order in which they take effect and gives each its answer.
fn fill_in(random: &mut Random, mix: Mix, planned: &mut [Planned]) {
    let mut order: Vec<usize> = (0..planned.len()).collect();
    order.sort_by_key(|place| planned[*place].effect.unwrap_or(u64::MAX));
    let mut state: Option<Vec<u8>> = None;
    for (number, place) in order.into_iter().enumerate() {
        let call = &mut planned[place];
        call.operation = draw(random, mix, number, state.as_deref());
        if call.effect.is_none() {
            continue;
        }
        let (after, answers) = outcomes(state.as_deref(), &call.operation);
        state = after;
        if call.outcome != Outcome::Unknown {
            call.outcome = match random.choose(&answers) {
                Some(answer) => Outcome::Answered(answer.clone()),
                None => Outcome::Failed,
            };
        }
    }
}

fn draw(random: &mut Random, mix: Mix, number: usize, state: Option<&[u8]>) -> Operation {
    let new = match mix {
        Mix::FewValues => random.below(3).to_string(),
        _ => format!("v{number}"),
    };
    if random.chance(350) {
        return Operation::Get;
    }
    match mix {
        Mix::Counter => Operation::Increment(if random.chance(800) { 1 } else { random.within(3) }),
        Mix::Log => Operation::Append(format!("{number};").as_str().into()),
        Mix::FewValues | Mix::UniqueValues => {
            let guess = random.below(3).to_string();
            let expected = if random.chance(600) { state.map(Text::from) } else { Some(guess.as_str().into()) };
            let weights = if matches!(mix, Mix::FewValues) { &[4, 5, 1, 2, 1, 1][..] } else { &[4, 5, 1, 2][..] };
            match random.weighted(weights) {
                0 => Operation::Set(new.as_str().into()),
                1 => Operation::CompareAndSet { expected, new: new.as_str().into() },
                2 => Operation::Delete,
                3 => Operation::CompareAndDelete { expected: expected.unwrap_or_else(|| guess.as_str().into()) },
                4 => Operation::Increment(1),
                _ => Operation::Append(guess.as_str().into()),
            }
        }
    }
}

/// Gives one answered operation another answer of the same kind. False if there is nothing to change.
pub(super) fn falsify(random: &mut Random, planned: &mut [Planned]) -> bool {
    let answered: Vec<usize> =
        (0..planned.len()).filter(|place| matches!(planned[*place].outcome, Outcome::Answered(_))).collect();
    let Some(place) = random.choose(&answered) else { return false };
    let values: Vec<Option<Text>> = planned
        .iter()
        .filter_map(|call| match &call.operation {
            Operation::Set(value) | Operation::CompareAndSet { new: value, .. } => Some(Some(value.clone())),
            _ => match &call.outcome {
                Outcome::Answered(Answer::Value(value)) => Some(value.clone()),
                _ => None,
            },
        })
        .chain([None, Some("1".into())])
        .collect();
    let Outcome::Answered(answer) = &mut planned[*place].outcome else { return false };
    let other = match answer {
        Answer::Value(_) => Answer::Value(random.choose(&values).cloned().flatten()),
        Answer::Done => Answer::Refused,
        Answer::Refused | Answer::Different | Answer::Absent => Answer::Done,
        Answer::Number(number) => Answer::Number(*number + if random.chance(500) { 1 } else { -1 }),
        Answer::Length(length) => Answer::Length(*length + 1),
    };
    let changed = *answer != other;
    *answer = other;
    changed
}

/// A call or a return.
#[derive(Debug, Clone, Copy)]
pub(super) enum Point {
    Call(usize),
    Return(usize),
}

/// Calls and returns in the order of time.
pub(super) fn points(planned: &[Planned]) -> Vec<(u64, Point)> {
    let mut points: Vec<(u64, Point)> = Vec::new();
    for (place, call) in planned.iter().enumerate() {
        points.push((call.called, Point::Call(place)));
        points.push((call.returned, Point::Return(place)));
    }
    points.sort_by_key(|(time, _)| *time);
    points
}

/// The history as the checker takes it.
pub(super) fn history(planned: &[Planned]) -> History {
    let mut history = History::new();
    let mut ids = vec![None; planned.len()];
    for (time, point) in points(planned) {
        match point {
            Point::Call(place) => {
                let call = &planned[place];
                ids[place] = Some(history.call(time, call.client, KEY, call.operation.clone()));
            }
            Point::Return(place) => history.finish(time, ids[place].unwrap(), planned[place].outcome.clone()),
        }
    }
    history
}

/// The calls as the reference takes them.
pub(super) fn calls(history: &History) -> Vec<Call> {
    history.calls().map(|(_, call)| call.clone()).collect()
}
