//! The anomalies that the checker is for, each beside the same history without it.

use super::super::*;
use Answer::{Absent, Different, Done, Length, Number, Refused};

const KEY: &[u8] = b"k";

/// A history on one key: each operation by its client, its call's and return's time, what was asked and what became of it.
fn history(calls: &[(u32, u64, u64, Operation, Outcome)]) -> History {
    enum Point {
        Call(usize),
        Return(usize),
    }
    let mut points = Vec::new();
    for (place, (_, called, returned, ..)) in calls.iter().enumerate() {
        assert!(called < returned);
        points.push((*called, Point::Call(place)));
        points.push((*returned, Point::Return(place)));
    }
    points.sort_by_key(|(time, _)| *time);
    let mut history = History::new();
    let mut ids = vec![None; calls.len()];
    for (time, point) in points {
        match point {
            Point::Call(place) => {
                ids[place] = Some(history.call(time, calls[place].0, KEY, calls[place].3.clone()));
            }
            Point::Return(place) => history.finish(time, ids[place].unwrap(), calls[place].4.clone()),
        }
    }
    history
}

fn verdict(calls: &[(u32, u64, u64, Operation, Outcome)]) -> Verdict {
    check(&history(calls), 10_000)
}

#[track_caller]
fn passes(calls: &[(u32, u64, u64, Operation, Outcome)]) {
    let verdict = verdict(calls);
    assert!(verdict.is_pass(), "{verdict}");
}

#[track_caller]
fn fails(calls: &[(u32, u64, u64, Operation, Outcome)]) {
    let verdict = verdict(calls);
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict}");
}

fn set(value: &str) -> Operation {
    Operation::Set(value.into())
}

fn cas(expected: &str, new: &str) -> Operation {
    Operation::CompareAndSet { expected: Some(expected.into()), new: new.into() }
}

fn create(new: &str) -> Operation {
    Operation::CompareAndSet { expected: None, new: new.into() }
}

fn got(value: &str) -> Outcome {
    Outcome::Answered(Answer::Value(Some(value.into())))
}

fn heard(answer: Answer) -> Outcome {
    Outcome::Answered(answer)
}

const NOTHING: Outcome = Outcome::Answered(Answer::Value(None));
const GET: Operation = Operation::Get;

#[test]
fn empty_history_passes() {
    passes(&[]);
    assert!(check(&History::new(), 0).is_pass());
}

#[test]
fn stale_read() {
    let write = |at, value| (1, at, at + 1, set(value), heard(Done));
    passes(&[write(1, "a"), write(3, "b"), (2, 5, 6, GET, got("b"))]);
    fails(&[write(1, "a"), write(3, "b"), (2, 5, 6, GET, got("a"))]);
    // The read overlaps the second write, so both are right.
    passes(&[write(1, "a"), (1, 3, 7, set("b"), heard(Done)), (2, 4, 5, GET, got("a"))]);
    passes(&[write(1, "a"), (1, 3, 7, set("b"), heard(Done)), (2, 4, 5, GET, got("b"))]);
}

#[test]
fn reads_that_go_back() {
    let write = (1, 1, 20, set("a"), heard(Done));
    passes(&[write.clone(), (2, 3, 4, GET, NOTHING), (3, 5, 6, GET, got("a"))]);
    fails(&[write, (2, 3, 4, GET, got("a")), (3, 5, 6, GET, NOTHING)]);
}

#[test]
fn lost_update() {
    let start = (1, 1, 2, Operation::Increment(1), heard(Number(1)));
    let second = (2, 3, 6, Operation::Increment(1), heard(Number(2)));
    passes(&[start.clone(), second.clone(), (3, 4, 5, Operation::Increment(1), heard(Number(3)))]);
    fails(&[start, second, (3, 4, 5, Operation::Increment(1), heard(Number(2)))]);
}

#[test]
fn lost_append() {
    let append =
        |client, at, value: &str, length| (client, at, at + 1, Operation::Append(value.into()), heard(Length(length)));
    passes(&[append(1, 1, "a;", 2), append(2, 3, "b;", 4), (3, 5, 6, GET, got("a;b;"))]);
    fails(&[append(1, 1, "a;", 2), append(2, 3, "b;", 4), (3, 5, 6, GET, got("b;"))]);
    fails(&[append(1, 1, "a;", 2), append(2, 3, "b;", 2)]);
}

#[test]
fn duplicate_apply() {
    let unknown = (1, 1, 9, Operation::Increment(5), Outcome::Unknown);
    passes(&[unknown.clone(), (2, 11, 12, GET, got("5")), (2, 13, 14, GET, got("5"))]);
    fails(&[unknown.clone(), (2, 11, 12, GET, got("10"))]);
    fails(&[unknown, (2, 11, 12, GET, got("5")), (2, 13, 14, GET, got("10"))]);
    fails(&[(1, 1, 2, Operation::Append("a".into()), heard(Length(1))), (2, 3, 4, GET, got("aa"))]);
}

#[test]
fn read_of_a_value_from_the_future() {
    passes(&[(1, 1, 4, GET, got("a")), (2, 3, 5, set("a"), heard(Done))]);
    fails(&[(1, 1, 2, GET, got("a")), (2, 3, 5, set("a"), heard(Done))]);
    fails(&[(1, 1, 2, GET, got("a")), (2, 3, 5, set("a"), Outcome::Unknown)]);
}

#[test]
fn read_of_a_value_that_nobody_wrote() {
    fails(&[(1, 1, 2, set("a"), heard(Done)), (2, 3, 4, GET, got("x"))]);
}

#[test]
fn unknown_outcome_that_took_effect_late() {
    let unknown = (1, 1, 2, set("late"), Outcome::Unknown);
    let other = (2, 3, 4, set("b"), heard(Done));
    passes(&[unknown.clone(), other.clone(), (2, 5, 6, GET, got("b")), (2, 7, 8, GET, got("late"))]);
    passes(&[unknown.clone(), other.clone(), (2, 5, 6, GET, got("b")), (2, 7, 8, GET, got("b"))]);
    passes(&[unknown.clone(), (2, 5, 6, GET, got("late")), other.clone()]);
    // But it takes effect only once.
    fails(&[unknown, (2, 2, 3, GET, got("late")), (2, 4, 5, set("b"), heard(Done)), (2, 6, 7, GET, got("late"))]);
}

#[test]
fn operation_without_a_return_is_of_unknown_outcome() {
    let mut history = History::new();
    history.call(1, 1, KEY, set("a"));
    let read = history.call(2, 2, KEY, GET);
    history.finish(3, read, got("a"));
    assert!(check(&history, 100).is_pass());
}

#[test]
fn failed_operation_never_happened() {
    let failed = (1, 1, 2, set("a"), Outcome::Failed);
    passes(&[failed.clone(), (2, 3, 4, GET, NOTHING)]);
    fails(&[failed, (2, 3, 4, GET, got("a"))]);
}

#[test]
fn compare_and_set_that_both_won() {
    let start = (1, 1, 2, set("a"), heard(Done));
    passes(&[start.clone(), (2, 3, 6, cas("a", "b"), heard(Done)), (3, 4, 5, cas("a", "c"), heard(Different))]);
    passes(&[start.clone(), (2, 3, 6, cas("a", "b"), heard(Refused)), (3, 4, 5, cas("a", "c"), heard(Done))]);
    fails(&[start.clone(), (2, 3, 6, cas("a", "b"), heard(Done)), (3, 4, 5, cas("a", "c"), heard(Done))]);
    fails(&[start, (2, 3, 6, cas("a", "b"), heard(Different)), (3, 4, 5, cas("a", "c"), heard(Different))]);
    passes(&[(1, 1, 4, create("a"), heard(Done)), (2, 2, 3, create("b"), heard(Refused))]);
    fails(&[(1, 1, 4, create("a"), heard(Done)), (2, 2, 3, create("b"), heard(Done))]);
}

#[test]
fn refusal_says_whether_there_was_a_value() {
    let start = (1, 1, 2, set("a"), heard(Done));
    fails(&[start.clone(), (2, 3, 4, cas("x", "y"), heard(Absent))]);
    passes(&[(2, 3, 4, cas("x", "y"), heard(Absent))]);
    fails(&[(2, 3, 4, cas("x", "y"), heard(Different))]);
    passes(&[start.clone(), (2, 3, 4, Operation::Delete, heard(Done)), (2, 5, 6, cas("a", "y"), heard(Absent))]);
    passes(&[start, (2, 3, 4, Operation::Delete, heard(Done)), (2, 5, 6, Operation::Delete, heard(Refused))]);
}

#[test]
fn write_may_tell_the_value_before() {
    let start = (1, 1, 2, set("a"), heard(Done));
    passes(&[start.clone(), (2, 3, 4, set("b"), got("a")), (2, 5, 6, GET, got("b"))]);
    fails(&[start.clone(), (2, 3, 4, set("b"), got("b"))]);
    passes(&[start.clone(), (2, 3, 4, cas("a", "b"), got("a")), (2, 5, 6, GET, got("b"))]);
    passes(&[start.clone(), (2, 3, 4, cas("x", "b"), got("a")), (2, 5, 6, GET, got("a"))]);
    fails(&[start, (2, 3, 4, cas("x", "b"), got("a")), (2, 5, 6, GET, got("b"))]);
}

#[test]
fn two_holders_of_a_lock() {
    let unlock = |value: &str| Operation::CompareAndDelete { expected: value.into() };
    let first = (1, 1, 2, create("first"), heard(Done));
    passes(&[
        first.clone(),
        (2, 3, 4, create("second"), heard(Refused)),
        (1, 5, 6, unlock("first"), heard(Done)),
        (2, 7, 8, create("second"), heard(Done)),
        (1, 9, 10, unlock("first"), heard(Refused)),
    ]);
    fails(&[first, (2, 3, 4, create("second"), heard(Done))]);
}

#[test]
fn keys_are_checked_one_by_one() {
    let mut history = History::new();
    for key in [b"a", b"b"] {
        let write = history.call(1, 1, key, set("x"));
        history.finish(1, write, heard(Done));
    }
    assert!(check(&history, 100).is_pass());
    let read = history.call(2, 1, b"b", GET);
    history.finish(2, read, NOTHING);
    let Verdict::Violation(violation) = check(&history, 100) else { panic!("a stale read passed") };
    assert_eq!(violation.key, b"b");
}

#[test]
fn violation_is_explained_by_where_every_order_ends() {
    let verdict = verdict(&[
        (1, 1, 2, set("a"), heard(Done)),
        (2, 3, 6, set("b"), heard(Done)),
        (1, 7_000_000, 7_000_009, GET, got("a")),
        (3, 8_000_000, 8_000_001, GET, got("b")),
    ]);
    assert_eq!(
        verdict.to_string(),
        "not linearizable: key \"k\", 4 operations with an answer\n\
the longest order that explains the answers has 2 operations:\n      \
0.000001 s to     0.000002 s  client 1   set \"a\": done\n      \
0.000003 s to     0.000006 s  client 2   set \"b\": done\n\
after it the key holds \"b\"\n\
one of these would have to come next, and none can:\n      \
7.000000 s to     7.000009 s  client 1   get: it was \"a\" (wrong here)\n"
    );
}

#[test]
fn running_out_of_steps_is_no_pass() {
    let calls: Vec<_> = (0..8).map(|client| (client, 1, 9, set(&client.to_string()), heard(Done))).collect();
    let verdict = check(&history(&calls), 3);
    assert!(matches!(verdict, Verdict::Undecided { .. }), "{verdict}");
    assert!(!verdict.is_pass());
}

#[test]
fn violation_outranks_an_undecided_key() {
    let mut history = History::new();
    for client in 0..8 {
        history.call(1, client, b"a", set(&client.to_string()));
    }
    let read = history.call(2, 1, b"a", GET);
    history.finish(3, read, got("nobody's"));
    let read = history.call(4, 1, b"b", GET);
    history.finish(5, read, got("nobody's"));
    let Verdict::Violation(violation) = check(&history, 5) else { panic!("no violation") };
    assert_eq!(violation.key, b"b");
}

/// A value is written, then another; then a replica that may be behind is asked.
fn read_of_old_after_two_writes(read: Option<&str>, third_write_follows: bool) -> Verdict {
    let mut history = History::new();
    for (time, value) in [(10, "a"), (20, "b")] {
        let id = history.call(time, 1, KEY, set(value));
        history.finish(time + 5, id, Outcome::Answered(Done));
    }
    let id = history.call_old(30, 2, KEY);
    history.finish(35, id, Outcome::Answered(Answer::Value(read.map(Text::from))));
    if third_write_follows {
        let id = history.call(40, 1, KEY, set("c"));
        history.finish(45, id, Outcome::Answered(Done));
    }
    check(&history, 10_000)
}

#[test]
fn read_that_may_be_old_shows_what_was_there_at_some_time() {
    for value in [None, Some("a"), Some("b")] {
        assert!(read_of_old_after_two_writes(value, false).is_pass(), "{value:?}");
    }
}

#[test]
fn read_that_may_be_old_shows_nothing_that_was_never_there_or_comes_later() {
    for (value, follows) in [("never written", false), ("c", true)] {
        let verdict = read_of_old_after_two_writes(Some(value), follows);
        assert!(matches!(verdict, Verdict::Violation(_)), "{value}: {verdict}");
        assert!(verdict.to_string().contains("get of any time before"), "{verdict}");
    }
}

/// Many old reads among writes of unknown outcome: what was tried is still told apart.
#[test]
fn reads_that_may_be_old_do_not_confuse_the_memory_of_what_was_tried() {
    let mut history = History::new();
    let mut now = 0;
    for number in 0..60_u32 {
        now += 10;
        let write = history.call(now, 1, KEY, set(&number.to_string()));
        let other = history.call(now + 1, 2, KEY, set(&format!("other {number}")));
        history.finish(now + 4, write, Outcome::Answered(Done));
        history.finish(now + 5, other, Outcome::Answered(Done));
        let read = history.call_old(now + 6, 3, KEY);
        let old = number / 2;
        let value = if number.is_multiple_of(3) { format!("other {old}") } else { old.to_string() };
        history.finish(now + 7, read, Outcome::Answered(Answer::Value(Some(value.as_str().into()))));
    }
    let verdict = check(&history, 100_000);
    assert!(verdict.is_pass(), "{verdict}");
}

/// A value that is stored from 100 to 110 us for 300 us, where clocks may be off by 50 us together; then what others do.
fn lapsing(others: &[(u64, u64, Operation, Answer)]) -> Verdict {
    let mut history = History::new();
    let lapse = Lapse { span_us: 300, error_us: 50 };
    let id = history.call_lapsing(100, 1, KEY, create("v"), lapse);
    history.finish(110, id, Outcome::Answered(Done));
    for (called, returned, operation, answer) in others {
        let id = history.call(*called, 2, KEY, operation.clone());
        history.finish(*returned, id, Outcome::Answered(answer.clone()));
    }
    check(&history, 10_000)
}

fn found(value: Option<&str>) -> Answer {
    Answer::Value(value.map(Text::from))
}

#[test]
fn value_goes_away_once_its_time_is_over() {
    let get = Operation::Get;
    assert!(lapsing(&[(200, 210, get.clone(), found(Some("v"))), (420, 430, get.clone(), found(None))]).is_pass());
    assert!(lapsing(&[(450, 460, get.clone(), found(Some("v")))]).is_pass(), "clocks may differ");
    assert!(lapsing(&[(350, 360, get, found(None))]).is_pass(), "the other way, too");
    assert!(lapsing(&[(420, 430, create("w"), Done), (440, 450, Operation::Get, found(Some("w")))]).is_pass());
}

#[test]
fn value_that_goes_away_too_soon_is_found() {
    for early in [(320, 330, Operation::Get, found(None)), (320, 330, create("w"), Done)] {
        let verdict = lapsing(&[early, (600, 610, Operation::Get, found(None))]);
        assert!(matches!(verdict, Verdict::Violation(_)), "{verdict}");
    }
}

#[test]
fn value_that_comes_back_is_found() {
    let (gone, there) = ((360, 370, Operation::Get, found(None)), (380, 390, Operation::Get, found(Some("v"))));
    let verdict = lapsing(&[gone, there]);
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict}");
    let taken = (360, 370, create("w"), Done);
    let verdict = lapsing(&[taken, (380, 390, cas("v", "x"), Done)]);
    assert!(matches!(verdict, Verdict::Violation(_)), "a lock that two have: {verdict}");
}

#[test]
fn value_that_stays_too_long_is_found() {
    for late in [(461, 470, Operation::Get, found(Some("v"))), (461, 470, cas("v", "w"), Done)] {
        let verdict = lapsing(&[late]);
        assert!(matches!(verdict, Verdict::Outlived(_)), "{verdict}");
        assert!(verdict.to_string().contains("outlived its deadline, which was 0.000460 s"), "{verdict}");
    }
}

#[test]
fn value_of_unknown_outcome_may_come_late_and_goes_once() {
    let mut history = History::new();
    let lapse = Lapse { span_us: 300, error_us: 50 };
    let id = history.call_lapsing(100, 1, KEY, set("v"), lapse);
    history.finish(200, id, Outcome::Unknown);
    for (time, value) in [(500, None), (600, Some("v")), (700, None)] {
        let id = history.call(time, 2, KEY, Operation::Get);
        history.finish(time + 10, id, Outcome::Answered(found(value)));
    }
    assert!(check(&history, 10_000).is_pass());
    let id = history.call(800, 2, KEY, Operation::Get);
    history.finish(810, id, Outcome::Answered(found(Some("v"))));
    let verdict = check(&history, 10_000);
    assert!(matches!(verdict, Verdict::Violation(_)), "{verdict}");
}

#[test]
fn value_whose_deadline_is_moved_has_until_the_last_one() {
    let get_and_move = |outcome: Outcome, span_us| {
        let mut history = History::new();
        let lapse = Lapse { span_us: 300, error_us: 50 };
        let id = history.call_lapsing(100, 1, KEY, create("v"), lapse);
        history.finish(110, id, Outcome::Answered(Done));
        let id = history.call_lapsing(200, 2, KEY, Operation::Get, Lapse { span_us, error_us: 50 });
        history.finish(210, id, outcome);
        let id = history.call(900, 2, KEY, Operation::Get);
        history.finish(910, id, Outcome::Answered(found(Some("v"))));
        check(&history, 10_000)
    };
    let moved = || Outcome::Answered(found(Some("v")));
    assert!(get_and_move(moved(), 700).is_pass());
    assert!(get_and_move(moved(), Lapse::NEVER).is_pass());
    assert!(get_and_move(Outcome::Unknown, 100).is_pass(), "nobody knows when it was done");
    let verdict = get_and_move(moved(), 600);
    assert!(matches!(verdict, Verdict::Outlived(_)), "{verdict}");
}
