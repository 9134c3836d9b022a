//! Clients that number their writes: what is unknown is sent again, under its number, until it is answered.
//!
//! To the checker such a write is one operation, from when it was first sent until it was answered: one that took effect twice, or
//! not at all although it was answered, is in no order that explains the history. So most of them append and add.

use std::rc::Rc;

use holdfast_client::Value;

use super::commands::{Request, encode};
use crate::check::Operation;

/// What a numbered write was sent as.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    session: Rc<str>,
    number: u64,
    /// An attempt may have been executed: a refusal is no failure any more.
    pub(super) unsettled: bool,
}

/// A client's session, once it has one.
#[derive(Debug, Default)]
pub(super) struct Session {
    id: Option<Rc<str>>,
    next: u64,
}

impl Session {
    /// Whether one has to be asked for.
    pub(super) fn is_missing(&self) -> bool {
        self.id.is_none()
    }

    /// The request for one.
    pub(super) fn encode_new(bytes: &mut Vec<u8>) {
        encode(&["HOLDFAST", "SESSION", "NEW"].map(|word| word.as_bytes().to_vec()), bytes);
    }

    /// Takes the answer to that; `false` if it is none.
    pub(super) fn begin(&mut self, reply: &Value) -> bool {
        let id = reply.as_bytes().and_then(|id| std::str::from_utf8(id).ok());
        self.id = id.map(Rc::from);
        self.id.is_some()
    }

    /// Gives a write its number; reads have none.
    pub(super) fn number(&mut self, request: &Request) -> Option<Numbered> {
        let session = self.id.clone().filter(|_| request.operation != Operation::Get)?;
        self.next += 1;
        Some(Numbered { session, number: self.next, unsettled: false })
    }

    /// The session is over.
    pub(super) fn forget(&mut self, numbered: &Numbered) {
        self.id.take_if(|id| *id == numbered.session);
    }
}

impl Numbered {
    /// The write as it is sent; `low` is the least number that is not answered yet.
    pub(super) fn encode(&self, request: &Request, low: u64, bytes: &mut Vec<u8>) {
        let (number, low) = (self.number.to_string(), low.to_string());
        let head = ["HOLDFAST", "ONCE", &self.session, &number, &low].map(|word| word.as_bytes().to_vec());
        encode(&[&head, request.words.as_slice()].concat(), bytes);
    }

    /// The least number of its session among these, itself included.
    pub(super) fn low<'a>(&self, others: impl Iterator<Item = &'a Numbered>) -> u64 {
        let same = others.filter(|other| other.session == self.session).map(|other| other.number);
        same.min().map_or(self.number, |low| low.min(self.number))
    }
}

/// Whether a reply says that the session of a write is over.
pub(super) fn is_over(reply: &Value) -> bool {
    matches!(reply, Value::Error(error) if error.code() == "SESSIONEXPIRED")
}
