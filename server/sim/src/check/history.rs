//! What the clients asked and heard, in the order in which it happened.

use std::collections::BTreeMap;

use super::model::{Answer, Operation, Text};

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer came.
    Answered(Answer),
    /// None came, or none has come yet: it may have happened, or may happen at any later time, or never.
    Unknown,
    /// It was refused: it did not happen and will not.
    Failed,
}

/// When a value goes away that was given a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapse {
    /// How long after that, in microseconds; [`Lapse::NEVER`] takes the deadline away.
    pub span_us: u64,
    /// How much sooner or later that may be noticed, since clocks differ, in microseconds.
    pub error_us: u64,
}

impl Lapse {
    /// The span of a value that stays.
    pub const NEVER: u64 = u64::MAX;
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who asked.
    pub client: u32,
    /// What was asked.
    pub operation: Operation,
    /// When it was asked, in microseconds of virtual time.
    pub called_us: u64,
    /// When the outcome was known, in microseconds of virtual time; `None` while it is not.
    pub returned_us: Option<u64>,
    /// What became of it.
    pub outcome: Outcome,
    /// It may show any state that there was before its return, however old.
    pub may_be_old: bool,
    /// The value that it stores, if it does, goes away by itself; of a read: the value that it finds.
    pub lapse: Option<Lapse>,
    /// Its call's place among all calls and returns. Times alone don't order what happens within a microsecond.
    pub(super) called_at: u64,
    /// Its return's place among all calls and returns.
    pub(super) returned_at: Option<u64>,
}

impl Call {
    /// The value that it stored, or may have.
    pub(super) fn stored(&self) -> Option<&Text> {
        let (Operation::Set(new) | Operation::CompareAndSet { new, .. }) = &self.operation else { return None };
        let refused = matches!(self.outcome, Outcome::Answered(Answer::Refused | Answer::Different | Answer::Absent));
        (!refused && self.outcome != Outcome::Failed).then_some(new)
    }

    /// The value that it found, as far as its answer says.
    pub(super) fn found(&self) -> Option<&Text> {
        match (&self.operation, &self.outcome) {
            (_, Outcome::Answered(Answer::Value(value))) => value.as_ref(),
            (
                Operation::CompareAndSet { expected: Some(expected), .. } | Operation::CompareAndDelete { expected },
                Outcome::Answered(Answer::Done),
            ) => Some(expected),
            _ => None,
        }
    }
}

/// Names an operation of one history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(usize);

/// Calls and returns of all clients on all keys. They are recorded in the order in which they happen, so the times must
/// never go back.
#[derive(Debug, Clone, Default)]
pub struct History {
    calls: Vec<(Vec<u8>, Call)>,
    /// When each call and return so far was.
    times_us: Vec<u64>,
}

impl History {
    /// A history in which nothing has happened.
    pub fn new() -> History {
        History::default()
    }

    /// A client asks. The outcome is unknown until one is recorded.
    ///
    /// # Panics
    /// If the time is before that of an earlier record.
    pub fn call(&mut self, now_us: u64, client: u32, key: &[u8], operation: Operation) -> OperationId {
        let called_at = self.next_place(now_us);
        let outcome = Outcome::Unknown;
        let call = Call {
            client,
            operation,
            called_us: now_us,
            returned_us: None,
            outcome,
            may_be_old: false,
            lapse: None,
            called_at,
            returned_at: None,
        };
        self.calls.push((key.to_vec(), call));
        OperationId(self.calls.len() - 1)
    }

    /// A client asks what a key held at some time: now, or before. In the order of operations it may stand anywhere before its return.
    ///
    /// # Panics
    /// If the time is before that of an earlier record.
    pub fn call_old(&mut self, now_us: u64, client: u32, key: &[u8]) -> OperationId {
        let id = self.call(now_us, client, key, Operation::Get);
        let call = &mut self.calls[id.0].1;
        (call.may_be_old, call.called_at) = (true, 0);
        id
    }

    /// A client asks to store a value that goes away by itself, or reads one and says when it shall go.
    ///
    /// # Panics
    /// If the time is before that of an earlier record.
    pub fn call_lapsing(
        &mut self,
        now_us: u64,
        client: u32,
        key: &[u8],
        operation: Operation,
        lapse: Lapse,
    ) -> OperationId {
        let id = self.call(now_us, client, key, operation);
        self.calls[id.0].1.lapse = Some(lapse);
        id
    }

    /// An outcome is known. `Outcome::Unknown` notes when the client gave up.
    ///
    /// # Panics
    /// If the operation has an outcome already, if the operation is of another history, or if the time is before that of
    /// an earlier record.
    pub fn finish(&mut self, now_us: u64, id: OperationId, outcome: Outcome) {
        let place = self.next_place(now_us);
        let call = &mut self.calls[id.0].1;
        assert!(call.returned_us.is_none(), "an operation has one outcome");
        call.returned_us = Some(now_us);
        if let Outcome::Answered(_) = outcome {
            call.returned_at = Some(place);
        }
        call.outcome = outcome;
    }

    fn next_place(&mut self, now_us: u64) -> u64 {
        let last_us = self.times_us.last().copied().unwrap_or(0);
        assert!(now_us >= last_us, "a history is recorded in the order of time");
        self.times_us.push(now_us);
        self.times_us.len() as u64
    }

    /// The place of the first call or return at this time or later; `None` if there is none.
    fn place_at(&self, time_us: u64) -> Option<u64> {
        let before = self.times_us.partition_point(|time| *time < time_us);
        (before < self.times_us.len()).then_some(before as u64 + 1)
    }

    /// What the end of a value's time is to the checker: somebody who deletes the value, from when it may be noticed on, or never.
    /// `None` if there is no such value, or it is there to the end.
    fn lapse_of(&self, call: &Call) -> Option<Call> {
        let Lapse { span_us, error_us } = call.lapse?;
        let operation = match (&call.operation, &call.outcome) {
            // Whatever it found.
            (Operation::Get, Outcome::Unknown) => Operation::Delete,
            (Operation::Get, _) => Operation::Lapse(call.found()?.clone()),
            _ => Operation::Lapse(call.stored()?.clone()),
        };
        let called_us = call.called_us.saturating_add(span_us).saturating_sub(error_us).max(call.called_us);
        let called_at = self.place_at(called_us)?;
        Some(Call {
            client: call.client,
            operation,
            called_us,
            returned_us: None,
            outcome: Outcome::Unknown,
            may_be_old: false,
            lapse: None,
            called_at,
            returned_at: None,
        })
    }

    /// The number of operations.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether nothing was asked yet.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// All operations with their keys, in the order of their calls.
    pub fn calls(&self) -> impl Iterator<Item = (&[u8], &Call)> {
        self.calls.iter().map(|(key, call)| (&key[..], call))
    }

    /// One operation.
    ///
    /// # Panics
    /// If it is of another history.
    pub fn operation(&self, id: OperationId) -> (&[u8], &Call) {
        let (key, call) = &self.calls[id.0];
        (key, call)
    }

    /// The operations of each key that count, in the order of their calls, those first that may show what is old; those that failed
    /// are left out. The ends of values' times are among them.
    pub(super) fn by_key(&self) -> BTreeMap<&[u8], Vec<Call>> {
        let mut keys: BTreeMap<&[u8], Vec<Call>> = BTreeMap::new();
        for (key, call) in &self.calls {
            if call.outcome != Outcome::Failed {
                let calls = keys.entry(key).or_default();
                calls.push(call.clone());
                calls.extend(self.lapse_of(call));
            }
        }
        keys.values_mut().for_each(|calls| calls.sort_by_key(|call| call.called_at));
        keys
    }
}
