//! One client.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use holdfast_client::{Decoder, Limits, Value};

use super::commands::{Knowledge, Request, draw, encode};
use super::{Action, Loss, Shared, WorkloadSettings};
use crate::check::{Answer, Operation, OperationId, Outcome, Text};
use crate::random::Random;
use crate::time::Micros;

/// A command that waits for its reply.
#[derive(Debug)]
struct Waiting {
    id: OperationId,
    request: Request,
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
    pub(super) fn new(mut random: Random, number: u32, settings: &WorkloadSettings, now: Micros) -> Client {
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
        self.waiting.is_empty()
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
        let mut bytes = Vec::new();
        for _ in 0..count {
            let Some(request) = self.next_request(shared) else { break };
            encode(&request.words, &mut bytes);
            let id = shared.history.call(now, self.number, &request.key, request.operation.clone());
            self.waiting.push_back(Waiting { id, request });
        }
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
        if shared.is_ending() {
            return shared.next_to_read().map(|key| Request::read_all(&key));
        }
        let key = shared.use_key(self.random.index(shared.key_count()));
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
                    self.take_reply(now, &waiting, &reply, shared);
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

    fn take_reply(&mut self, now: Micros, waiting: &Waiting, reply: &Value, shared: &mut Shared) {
        let outcome = waiting.request.read(reply).unwrap_or_else(|anomaly| {
            shared.anomalies.push(format!("at {now} us, client {}: {anomaly}", self.number));
            Outcome::Unknown
        });
        match &outcome {
            Outcome::Answered(answer) => self.learn(&waiting.request, answer),
            Outcome::Unknown | Outcome::Failed => self.has_failed = true,
        }
        if let Value::Error(error) = reply
            && let Some(redirect) = error.redirect()
        {
            self.next_node = (shared.node_of)(&redirect.address).or(self.next_node);
        }
        shared.finish(now, waiting.id, outcome);
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
        match self.next_node.take() {
            Some(node) if node != self.node => self.leave(node, shared),
            None if failed => self.leave_for_any(shared),
            _ => {}
        }
        let pause = if failed { shared.settings.retry_us.clone() } else { shared.settings.think_us.clone() };
        self.wakes_at = now + self.random.range(pause);
    }

    /// Gives up the connection and what was asked on it.
    fn give_up(&mut self, now: Micros, outcome: Outcome, shared: &mut Shared) {
        while let Some(waiting) = self.waiting.pop_front() {
            shared.finish(now, waiting.id, outcome.clone());
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
        self.node = node;
        self.connection += 1;
        self.decoder = Decoder::new(Limits::default());
        self.buffer.clear();
    }
}
