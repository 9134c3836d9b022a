//! One client.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use holdfast_client::{Decoder, Limits, Value};

use super::commands::{Knowledge, REFUSED_CODES, Request, Span, draw, draw_read, encode};
use super::reader::Reader;
use super::session::{Numbered, Session, is_over};
use super::{Action, Loss, Shared, WorkloadSettings};
use crate::check::{Answer, Lapse, Operation, OperationId, Outcome, Text};
use crate::random::Random;
use crate::time::{MILLISECOND, Micros};

/// How likely a reader goes elsewhere after a round, of a thousand.
const READER_LEAVES_PER_MILLE: u32 = 50;

/// What kind of client it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// It asks whoever leads.
    Plain,
    /// It numbers its writes: see [`super::session`].
    NumbersWrites,
    /// It only reads, from whomever: see [`super::reader`].
    ReadsReplicas,
}

/// A command that waits for its reply.
#[derive(Debug)]
struct Asked {
    id: OperationId,
    request: Request,
    /// It is a numbered write: see [`super::session`].
    numbered: Option<Numbered>,
}

/// What waits for a reply.
#[derive(Debug)]
enum Waiting {
    Command(Asked),
    /// The beginning of a session, which is no operation.
    Session,
    /// READONLY, which is none either.
    ReadOnly,
}

/// One client: a closed loop on one connection.
#[derive(Debug)]
pub(super) struct Client {
    number: u32,
    random: Random,
    node: u32,
    /// The connection in use, or the one that the next command opens.
    connection: u32,
    is_open: bool,
    decoder: Decoder,
    buffer: BytesMut,
    waiting: VecDeque<Waiting>,
    /// The client's session, if it is one that numbers its writes.
    session: Option<Session>,
    /// If it is one that reads from replicas.
    reader: Option<Reader>,
    /// Numbered writes to be sent again, the oldest first.
    again: VecDeque<Asked>,
    /// When the pause is over, or while it waits for replies, when it gives up.
    wakes_at: Micros,
    /// Where to go once the present replies are in.
    next_node: Option<u32>,
    has_failed: bool,
    /// What it last saw each key hold. Keys that were retired stay; there are few.
    seen: BTreeMap<Vec<u8>, Text>,
    written: u64,
}

impl Client {
    pub(super) fn new(
        mut random: Random,
        number: u32,
        habit: Habit,
        settings: &WorkloadSettings,
        now: Micros,
    ) -> Client {
        let node = random.below(u64::from(settings.nodes)) as u32 + 1;
        let wakes_at = now + random.range(settings.think_us.clone());
        Client {
            number,
            random,
            node,
            connection: 1,
            is_open: false,
            decoder: Decoder::new(Limits::default()),
            buffer: BytesMut::new(),
            waiting: VecDeque::new(),
            session: (habit == Habit::NumbersWrites).then(Session::default),
            reader: (habit == Habit::ReadsReplicas).then(Reader::default),
            again: VecDeque::new(),
            wakes_at,
            next_node: None,
            has_failed: false,
            seen: BTreeMap::new(),
            written: 0,
        }
    }

    pub(super) fn wakes_at(&self) -> Micros {
        self.wakes_at
    }

    pub(super) fn connection(&self) -> u32 {
        self.connection
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.again.is_empty()
    }

    /// Ends the pause, if it is in one.
    pub(super) fn hurry(&mut self, now: Micros) {
        if self.waiting.is_empty() {
            self.wakes_at = now;
        }
    }

    /// The pause is over, or the patience.
    pub(super) fn wake(&mut self, now: Micros, shared: &mut Shared) {
        if self.waiting.is_empty() {
            self.ask(now, shared);
        } else {
            self.give_up(now, Outcome::Unknown, shared);
        }
    }

    fn ask(&mut self, now: Micros, shared: &mut Shared) {
        let count = self.random.range(1..=u64::from(shared.settings.pipeline_max.max(1)));
        let mut asked: VecDeque<Asked> = std::mem::take(&mut self.again);
        let mut bytes = Vec::new();
        if asked.is_empty() && !shared.is_ending() && self.session.as_ref().is_some_and(Session::is_missing) {
            Session::encode_new(&mut bytes);
            self.waiting.push_back(Waiting::Session);
        } else if asked.is_empty() {
            for _ in 0..count {
                let Some(request) = self.next_request(shared) else { break };
                let (client, key, operation) = (self.number, &request.key, request.operation.clone());
                let error_us = shared.settings.deadline_error_us;
                let id = match request.lapse {
                    Some(span) => {
                        let span_us = match span {
                            Span::Milliseconds(ms) => ms * MILLISECOND,
                            Span::ForEver => Lapse::NEVER,
                        };
                        let lapse = Lapse { span_us, error_us };
                        shared.history.call_lapsing(now, client, key, operation, lapse)
                    }
                    None if self.reader.is_some() && shared.settings.reads_may_be_old => {
                        shared.history.call_old(now, client, key)
                    }
                    None => shared.history.call(now, client, key, operation),
                };
                let numbered = self.session.as_mut().and_then(|session| session.number(&request));
                asked.push_back(Asked { id, request, numbered });
            }
        }
        if self.reader.is_some() && !self.is_open && !asked.is_empty() {
            Reader::encode_read_only(&mut bytes);
            self.waiting.push_back(Waiting::ReadOnly);
        }
        for Asked { request, numbered, .. } in &asked {
            let others = || asked.iter().filter_map(|asked| asked.numbered.as_ref());
            match numbered {
                Some(numbered) => numbered.encode(request, numbered.low(others()), &mut bytes),
                None => encode(&request.words, &mut bytes),
            }
        }
        self.waiting.extend(asked.into_iter().map(Waiting::Command));
        if self.waiting.is_empty() {
            // Everything was read, unless a read that is still under way fails: then it is asked again.
            self.wakes_at = now + shared.settings.timeout_us;
            return;
        }
        self.is_open = true;
        self.wakes_at = now + shared.settings.timeout_us;
        let (client, connection, node) = (self.number, self.connection, self.node);
        shared.actions.push(Action::Send { client, connection, node, bytes });
    }

    fn next_request(&mut self, shared: &mut Shared) -> Option<Request> {
        let may_be_old = self.reader.is_some() && shared.settings.reads_may_be_old;
        if shared.is_ending() {
            let key = if may_be_old { None } else { shared.next_to_read() };
            return key.map(|key| Request::read_all(&key));
        }
        let key = shared.use_key(self.random.index(shared.key_count()));
        if self.reader.is_some() {
            return Some(draw_read(&mut self.random, key.kind, &key.name));
        }
        self.written += 1;
        let unique = format!("{}.{}", self.number, self.written);
        let knowledge = Knowledge { seen: self.seen.get(&key.name), unique };
        Some(draw(&mut self.random, key.kind, &key.name, &knowledge))
    }

    pub(super) fn receive(&mut self, now: Micros, bytes: &[u8], shared: &mut Shared) {
        self.buffer.extend_from_slice(bytes);
        loop {
            match self.decoder.decode(&mut self.buffer) {
                Ok(None) => break,
                Ok(Some(reply)) => {
                    let Some(waiting) = self.waiting.pop_front() else {
                        shared.anomalies.push(format!("client {} got a reply to nothing: {reply:?}", self.number));
                        return self.give_up(now, Outcome::Unknown, shared);
                    };
                    self.take_reply(now, waiting, &reply, shared);
                }
                Err(error) => {
                    shared.anomalies.push(format!("client {} got what is no reply: {error}", self.number));
                    return self.give_up(now, Outcome::Unknown, shared);
                }
            }
        }
        if self.waiting.is_empty() {
            self.rest(now, shared);
        }
    }

    fn take_reply(&mut self, now: Micros, waiting: Waiting, reply: &Value, shared: &mut Shared) {
        if let Value::Error(error) = reply
            && let Some(redirect) = error.redirect()
        {
            self.next_node = (shared.node_of)(&redirect.address).or(self.next_node);
        }
        let mut asked = match waiting {
            Waiting::Command(asked) => asked,
            Waiting::Session => {
                let begun = self.session.as_mut().is_some_and(|session| session.begin(reply));
                self.has_failed |= !begun;
                let refused = matches!(reply, Value::Error(error) if REFUSED_CODES.contains(&error.code()));
                if !begun && !refused {
                    shared.anomalies.push(format!("client {} asked for a session and got {reply:?}", self.number));
                }
                return;
            }
            Waiting::ReadOnly => {
                if !Reader::is_taken(reply) {
                    shared.anomalies.push(format!("client {} said READONLY and got {reply:?}", self.number));
                }
                return;
            }
        };
        if let (Some(numbered), true) = (&asked.numbered, is_over(reply)) {
            // Whether an earlier attempt was executed, nobody can say any more.
            let outcome = if numbered.unsettled { Outcome::Unknown } else { Outcome::Failed };
            if let Some(session) = &mut self.session {
                session.forget(numbered);
            }
            self.has_failed = true;
            return shared.finish(now, asked.id, outcome);
        }
        let outcome = asked.request.read(reply).unwrap_or_else(|anomaly| {
            shared.anomalies.push(format!("at {now} us, client {}: {anomaly}", self.number));
            // It is in the log of anomalies, which is enough.
            asked.numbered = None;
            Outcome::Unknown
        });
        if let (Some(reader), Outcome::Answered(answer)) = (&mut self.reader, &outcome)
            && let Err(anomaly) = reader.hear(&asked.request, answer)
        {
            shared.anomalies.push(format!("at {now} us, client {}: {anomaly}", self.number));
        }
        match &outcome {
            Outcome::Answered(answer) => self.learn(&asked.request, answer),
            Outcome::Unknown | Outcome::Failed => self.has_failed = true,
        }
        self.settle(now, asked, outcome, shared);
    }

    /// Writes down how a command ended, or keeps it to be sent again.
    fn settle(&mut self, now: Micros, mut asked: Asked, outcome: Outcome, shared: &mut Shared) {
        if let Some(numbered) = &mut asked.numbered {
            numbered.unsettled |= outcome == Outcome::Unknown;
            if numbered.unsettled && !matches!(outcome, Outcome::Answered(_)) {
                return self.again.push_back(asked);
            }
        }
        shared.finish(now, asked.id, outcome);
    }

    /// Remembers what the key holds now, as far as the answer says.
    fn learn(&mut self, request: &Request, answer: &Answer) {
        let now_there = match (&request.operation, answer) {
            (Operation::Get, Answer::Value(value)) => value.clone(),
            (Operation::Set(new), _) => Some(new.clone()),
            (Operation::CompareAndSet { new, .. }, Answer::Done) => Some(new.clone()),
            (Operation::CompareAndSet { expected, new }, Answer::Value(old)) => {
                if old == expected {
                    Some(new.clone())
                } else {
                    old.clone()
                }
            }
            _ => None,
        };
        // Only registers are compared; the values of logs are long.
        if let Some(value) = now_there.filter(|value| value.as_bytes().len() < 64) {
            self.seen.insert(request.key.clone(), value);
        }
    }

    /// A round is over: thinks a little, and goes elsewhere if it was sent away.
    fn rest(&mut self, now: Micros, shared: &mut Shared) {
        let failed = std::mem::take(&mut self.has_failed);
        let next_node = self.next_node.take();
        if self.reader.is_some() {
            if failed || self.random.chance(READER_LEAVES_PER_MILLE) {
                self.leave_for_any(shared);
            }
        } else {
            match next_node {
                Some(node) if node != self.node => self.leave(node, shared),
                None if failed => self.leave_for_any(shared),
                _ => {}
            }
        }
        let pause = if failed { shared.settings.retry_us.clone() } else { shared.settings.think_us.clone() };
        self.wakes_at = now + self.random.range(pause);
    }

    /// Gives up the connection and what was asked on it.
    fn give_up(&mut self, now: Micros, outcome: Outcome, shared: &mut Shared) {
        while let Some(waiting) = self.waiting.pop_front() {
            if let Waiting::Command(asked) = waiting {
                self.settle(now, asked, outcome.clone(), shared);
            }
        }
        self.has_failed = false;
        self.next_node = None;
        self.leave_for_any(shared);
        self.wakes_at = now + self.random.range(shared.settings.retry_us.clone());
    }

    pub(super) fn lose(&mut self, now: Micros, loss: Loss, shared: &mut Shared) {
        // It is closed already, from the other side.
        self.is_open = false;
        let outcome = match loss {
            Loss::Refused => Outcome::Failed,
            Loss::Broken => Outcome::Unknown,
        };
        self.give_up(now, outcome, shared);
    }

    fn leave_for_any(&mut self, shared: &mut Shared) {
        let node = self.random.below(u64::from(shared.settings.nodes)) as u32 + 1;
        self.leave(node, shared);
    }

    fn leave(&mut self, node: u32, shared: &mut Shared) {
        if self.is_open {
            let (client, connection, node) = (self.number, self.connection, self.node);
            shared.actions.push(Action::Close { client, connection, node });
        }
        self.is_open = false;
        if let Some(reader) = &mut self.reader {
            reader.leave();
        }
        self.node = node;
        self.connection += 1;
        self.decoder = Decoder::new(Limits::default());
        self.buffer.clear();
    }
}
