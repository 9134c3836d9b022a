//! Clients that read from replicas, and what they must not see on one connection.
//!
//! A connection says READONLY when it is made and keeps to one process. What that knows grows and never shrinks, be it behind or not:
//! so a log, which is only appended to, never gets shorter. That each value was there at some time is for the checker to say.

use std::collections::BTreeMap;

use holdfast_client::Value;

use super::commands::{Request, encode, is_log};
use crate::check::{Answer, Text};

/// What a reader saw on its connection.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The length of each log.
    lengths: BTreeMap<Vec<u8>, u64>,
}

impl Reader {
    /// The first request of each connection.
    pub(super) fn encode_read_only(bytes: &mut Vec<u8>) {
        encode(&[b"READONLY".to_vec()], bytes);
    }

    /// Whether that is how it is answered.
    pub(super) fn is_taken(reply: &Value) -> bool {
        matches!(reply, Value::Simple(text) if &text[..] == b"OK")
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// If it is older than an earlier one on this connection; says how.
    pub(super) fn hear(&mut self, request: &Request, answer: &Answer) -> Result<(), String> {
        let length = match answer {
            Answer::Length(length) => *length,
            Answer::Value(value) => value.as_ref().map_or(0, |value| value.as_bytes().len() as u64),
            _ => return Ok(()),
        };
        if !is_log(&request.key) {
            return Ok(());
        }
        let before = self.lengths.insert(request.key.clone(), length).unwrap_or(0);
        if length >= before {
            return Ok(());
        }
        let key = Text::from(&request.key[..]);
        Err(format!("{key} went back on one connection: {before} bytes, then {length}"))
    }

    /// The connection is over.
    pub(super) fn leave(&mut self) {
        self.lengths.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_that_gets_shorter_on_one_connection_is_noticed() {
        let mut reader = Reader::default();
        let log = Request::get(b"log-0.1");
        let value = |text: &str| Answer::Value(Some(text.into()));
        assert_eq!(reader.hear(&log, &value("a;b;")), Ok(()));
        assert_eq!(reader.hear(&Request::get(b"register-0.1"), &Answer::Value(None)), Ok(()));
        assert_eq!(reader.hear(&log, &Answer::Length(4)), Ok(()));
        let anomaly = reader.hear(&log, &value("a;")).unwrap_err();
        assert!(anomaly.contains("went back on one connection: 4 bytes, then 2"), "{anomaly}");
        reader.leave();
        assert_eq!(reader.hear(&log, &Answer::Value(None)), Ok(()));
    }
}
