//! The everyday commands, typed.

use std::time::Duration;

use bytes::Bytes;

use crate::client::Client;
use crate::command::Command;
use crate::error::Error;
use crate::value::Value;

/// When a `SET` takes effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetCondition {
    /// Only if the key does not exist.
    Absent,
    /// Only if the key exists.
    Present,
    /// Only if the key holds exactly these bytes.
    Equals(Bytes),
}

/// What a `SET` does to the key's lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The key will live until it is deleted.
    Never,
    /// The key keeps the deadline that it has.
    Keep,
    /// The key is gone after this time (in whole milliseconds).
    After(Duration),
}

/// Options of [`Client::set_with`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetOptions {
    /// Set only if this holds.
    pub condition: Option<SetCondition>,
    /// The key's lifetime.
    pub expiry: Expiry,
}

impl Default for SetOptions {
    fn default() -> Self {
        SetOptions { condition: None, expiry: Expiry::Never }
    }
}

/// How long a key will live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    Absent,
    /// It has no deadline.
    Forever,
    /// It is gone after this time.
    Remaining(Duration),
}

/// Which keys [`Client::scan`] gives, and how many are looked at per step.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// Only keys that match this glob pattern.
    pub pattern: Option<Bytes>,
    /// Only keys that hold this type (`string`).
    pub type_name: Option<String>,
    /// Keys that the server looks at per step; its default is 10.
    pub count: Option<u64>,
}

/// A walk over the keys, a page at a time.
///
/// Keys that exist from beginning to end of the walk are given at least once; a key may come twice.
#[derive(Debug)]
pub struct Scan {
    client: Client,
    options: ScanOptions,
    cursor: Option<Bytes>,
}

impl Client {
    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// See [`Client::call`]; `WRONGTYPE` if the key holds no string.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        match self.call(Command::read("GET").key(key)).await? {
            Value::Null => Ok(None),
            Value::Bulk(value) => Ok(Some(value)),
            other => Err(unexpected("GET", &other, "a string or null")),
        }
    }

    /// Sets a key, whatever it held.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        let value = Bytes::copy_from_slice(value.as_ref());
        self.set_with(key, value, &SetOptions::default()).await.map(|_| ())
    }

    /// Sets a key under a condition or with a lifetime; false if the condition did not hold.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn set_with(&self, key: impl AsRef<[u8]>, value: Bytes, options: &SetOptions) -> Result<bool, Error> {
        let mut command = Command::write("SET").key(key).arg_shared(value);
        command = match &options.condition {
            None => command,
            Some(SetCondition::Absent) => command.arg("NX"),
            Some(SetCondition::Present) => command.arg("XX"),
            Some(SetCondition::Equals(old)) => command.arg("IFEQ").arg_shared(old.clone()),
        };
        command = match options.expiry {
            Expiry::Never => command,
            Expiry::Keep => command.arg("KEEPTTL"),
            Expiry::After(time) => command.arg("PX").arg(time.as_millis().to_string()),
        };
        match self.call(command).await? {
            Value::Null => Ok(false),
            value if value.is_ok() => Ok(true),
            other => Err(unexpected("SET", &other, "OK or null")),
        }
    }

    /// Replaces a value if it is exactly `old`; true if it was.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn compare_and_set(&self, key: impl AsRef<[u8]>, old: Bytes, new: Bytes) -> Result<bool, Error> {
        let options = SetOptions { condition: Some(SetCondition::Equals(old)), expiry: Expiry::Never };
        self.set_with(key, new, &options).await
    }

    /// Deletes a key if its value is exactly `old`; true if it was.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn compare_and_delete(&self, key: impl AsRef<[u8]>, old: Bytes) -> Result<bool, Error> {
        self.integer(Command::write("DELIFEQ").key(key).arg_shared(old)).await.map(|count| count > 0)
    }

    /// Deletes keys; how many there were.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn delete<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<i64, Error> {
        self.integer(keys.iter().fold(Command::write("DEL"), Command::key)).await
    }

    /// How many of these keys exist; one named twice counts twice.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn exists<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<i64, Error> {
        self.integer(keys.iter().fold(Command::read("EXISTS"), Command::key)).await
    }

    /// Adds to the number in a key (zero if it is absent); the sum.
    ///
    /// # Errors
    /// See [`Client::call`]; `ERR` if the value is no number or the sum too large.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.integer(Command::write("INCRBY").key(key).number(by)).await
    }

    /// How long a key will live.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn time_to_live(&self, key: impl AsRef<[u8]>) -> Result<TimeToLive, Error> {
        Ok(match self.integer(Command::read("PTTL").key(key)).await? {
            -2 => TimeToLive::Absent,
            negative if negative < 0 => TimeToLive::Forever,
            milliseconds => TimeToLive::Remaining(Duration::from_millis(milliseconds.unsigned_abs())),
        })
    }

    /// A walk over the keys.
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan { client: self.clone(), options, cursor: Some(Bytes::from_static(b"0")) }
    }

    /// Executes a command that answers with a number.
    ///
    /// # Errors
    /// See [`Client::call`].
    pub async fn integer(&self, command: Command) -> Result<i64, Error> {
        let name = String::from_utf8_lossy(command.name()).into_owned();
        match self.call(command).await? {
            Value::Integer(number) => Ok(number),
            other => Err(unexpected(&name, &other, "an integer")),
        }
    }
}

impl Scan {
    /// The next keys; possibly none although the walk goes on. `None` at the end.
    ///
    /// # Errors
    /// See [`Client::call`]. The walk can be continued after an error.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let Some(cursor) = self.cursor.clone() else { return Ok(None) };
        let mut command = Command::read("SCAN").arg_shared(cursor);
        if let Some(pattern) = &self.options.pattern {
            command = command.arg("MATCH").arg_shared(pattern.clone());
        }
        if let Some(count) = self.options.count {
            command = command.arg("COUNT").number(count);
        }
        if let Some(type_name) = &self.options.type_name {
            command = command.arg("TYPE").arg(type_name);
        }
        let reply = self.client.call(command).await?;
        let (cursor, keys) = match reply {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::Bulk(cursor), Value::Array(keys)]) => (cursor, keys),
                _ => return Err(unexpected("SCAN", &Value::Null, "a cursor and an array of keys")),
            },
            other => return Err(unexpected("SCAN", &other, "an array")),
        };
        self.cursor = (cursor.as_ref() != b"0").then_some(cursor);
        let expected = "an array of strings";
        keys.into_iter()
            .map(|key| match key {
                Value::Bulk(key) => Ok(key),
                other => Err(unexpected("SCAN", &other, expected)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some)
    }
}

fn unexpected(command: &str, got: &Value, expected: &'static str) -> Error {
    Error::Unexpected { command: command.into(), got: got.kind(), expected }
}
