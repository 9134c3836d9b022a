//! What is asked: keys, values, and the mix of writes and reads.

use std::str::FromStr;

use crate::random::Random;
use crate::wire::put_command;

/// Shares of writes and reads, for example 1:9.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Parts of `SET`.
    pub sets: u32,
    /// Parts of `GET`.
    pub gets: u32,
}

impl Mix {
    /// Only `SET`.
    pub const SETS: Mix = Mix { sets: 1, gets: 0 };
    /// Only `GET`.
    pub const GETS: Mix = Mix { sets: 0, gets: 1 };
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(':').and_then(|(sets, gets)| Some((sets.parse().ok()?, gets.parse().ok()?)));
        match parts {
            Some((sets, gets)) if sets != 0 || gets != 0 => Ok(Mix { sets, gets }),
            _ => Err(format!("`{text}` is no mix: write SETS:GETS, for example 1:9")),
        }
    }
}

/// A request, before it is put into a protocol's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Write this value to this key.
    Set(&'a [u8], &'a [u8]),
    /// Read this key.
    Get(&'a [u8]),
}

impl Request<'_> {
    /// Appends it as a command of the Redis protocol.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Request::Set(key, value) => put_command(out, &[b"SET", key, value]),
            Request::Get(key) => put_command(out, &[b"GET", key]),
        }
    }
}

/// A source of requests; each connection has its own.
#[derive(Debug)]
pub struct Requests {
    random: Random,
    mix: Mix,
    keys: u64,
    value: Vec<u8>,
    key: Vec<u8>,
}

impl Requests {
    /// A source that the seed determines. The mix must have a part that isn't zero.
    pub fn new(seed: u64, mix: Mix, keys: u64, value_bytes: usize) -> Self {
        let mut random = Random::new(seed);
        let mut value = vec![0; value_bytes];
        random.fill(&mut value);
        Requests { random, mix, keys: keys.max(1), value, key: Vec::new() }
    }

    /// A request for a random key.
    pub fn draw(&mut self) -> Request<'_> {
        let number = self.random.below(self.keys);
        let all = u64::from(self.mix.sets) + u64::from(self.mix.gets);
        if self.random.below(all) < u64::from(self.mix.sets) {
            self.set(number)
        } else {
            self.name(number);
            Request::Get(&self.key)
        }
    }

    /// A write of a certain key.
    pub fn set(&mut self, number: u64) -> Request<'_> {
        self.name(number);
        // Values differ, so that a store can't gain by their being equal.
        let stamp = self.random.bits().to_le_bytes();
        let length = self.value.len().min(stamp.len());
        self.value[..length].copy_from_slice(&stamp[..length]);
        Request::Set(&self.key, &self.value)
    }

    fn name(&mut self, number: u64) {
        self.key.clear();
        self.key.extend_from_slice(format!("key:{number:012}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_kept() {
        let mut requests = Requests::new(1, "1:3".parse().unwrap(), 100, 8);
        let mut sets = 0;
        for _ in 0..4000 {
            let mut out = Vec::new();
            requests.draw().put(&mut out);
            sets += u32::from(out.starts_with(b"*3\r\n$3\r\nSET"));
        }
        assert!((900..1100).contains(&sets), "{sets}");
        assert!("0:0".parse::<Mix>().is_err() && "1".parse::<Mix>().is_err());
    }
}
