//! What a writer does: operation by operation, decided by numbers alone.

use crate::random::{Random, mix};
use crate::wire::put_command;

/// The counter that all writers increment.
pub const SHARED_COUNTER: &[u8] = b"c_shared";

/// One operation is one command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `SET` of a key that is never used again.
    Set,
    /// The same with a value between 64 KiB and 1.3 MiB: more than a log entry holds, at times.
    SetLarge,
    /// `DEL` of the key that the operation before has set.
    Delete,
    /// `MSET` of three new keys: all or none.
    MultiSet,
    /// `SET` of the writer's register, which is overwritten again and again.
    Register,
    /// `INCR` of the writer's own counter.
    Increment,
    /// `INCR` of everyone's counter.
    IncrementShared,
}

/// The list of one writer.
#[derive(Debug, Clone)]
pub struct Plan {
    seed: u64,
    writer: u64,
    value_bytes_max: u64,
}

impl Plan {
    /// The list of a writer under a seed; ordinary values are at most `value_bytes_max` long (and at least 24).
    pub fn new(seed: u64, writer: u64, value_bytes_max: u64) -> Self {
        Plan { seed, writer, value_bytes_max: value_bytes_max.max(24) }
    }

    /// Its writer's number.
    pub fn writer(&self) -> u64 {
        self.writer
    }

    fn random(&self, number: u64) -> Random {
        Random::new(mix(self.seed ^ mix(self.writer ^ mix(number))))
    }

    fn kind_alone(&self, number: u64) -> Kind {
        match self.random(number).below(1000) {
            0..560 => Kind::Set,
            560..561 => Kind::SetLarge,
            561..700 => Kind::MultiSet,
            700..800 => Kind::Register,
            800..900 => Kind::Increment,
            900..950 => Kind::IncrementShared,
            _ => Kind::Delete,
        }
    }

    /// What operation `number` does.
    pub fn kind(&self, number: u64) -> Kind {
        match self.kind_alone(number) {
            // There is something to delete only right after a set; elsewhere it is one more set.
            Kind::Delete if number == 0 || self.kind_alone(number - 1) != Kind::Set => Kind::Set,
            kind => kind,
        }
    }

    /// The keys that an operation writes and nobody else does: one, three, or none.
    pub fn keys(&self, number: u64) -> Vec<Vec<u8>> {
        let name = |suffix: &str| format!("k_{}_{number}{suffix}", self.writer).into_bytes();
        match self.kind(number) {
            Kind::Set | Kind::SetLarge => vec![name("")],
            // The three lie in different slots.
            Kind::MultiSet => vec![name("_a"), name("_b"), name("_c")],
            _ => Vec::new(),
        }
    }

    /// The value that an operation writes: unique, and of a length that differs.
    pub fn value(&self, number: u64) -> Vec<u8> {
        let mut value = format!("{}-{number}:", self.writer).into_bytes();
        let mut random = self.random(number);
        random.bits();
        let length = match self.kind(number) {
            Kind::Register => 0,
            Kind::SetLarge => (64 << 10) + random.below(1280 << 10),
            // Mostly short.
            _ => random.below(self.value_bytes_max).min(random.below(self.value_bytes_max)),
        };
        let start = value.len();
        value.resize(start.max(length as usize), 0);
        random.fill(&mut value[start..]);
        value
    }

    /// The writer's register.
    pub fn register(&self) -> Vec<u8> {
        format!("r_{}", self.writer).into_bytes()
    }

    /// The writer's counter.
    pub fn counter(&self) -> Vec<u8> {
        format!("c_{}", self.writer).into_bytes()
    }

    /// Appends the command of an operation.
    pub fn put(&self, number: u64, out: &mut Vec<u8>) {
        match self.kind(number) {
            Kind::Set | Kind::SetLarge | Kind::MultiSet => {
                let (keys, value) = (self.keys(number), self.value(number));
                let name: &[u8] = if keys.len() > 1 { b"MSET" } else { b"SET" };
                let mut words = vec![name];
                for key in &keys {
                    words.push(key);
                    words.push(&value);
                }
                put_command(out, &words);
            }
            Kind::Delete => {
                let target = self.keys(number - 1);
                put_command(out, &[b"DEL", &target[0]]);
            }
            Kind::Register => put_command(out, &[b"SET", &self.register(), &self.value(number)]),
            Kind::Increment => put_command(out, &[b"INCR", &self.counter()]),
            Kind::IncrementShared => put_command(out, &[b"INCR", SHARED_COUNTER]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_occurs_and_deletes_follow_sets() {
        let plan = Plan::new(1, 2, 100);
        let mut seen = Vec::new();
        for number in 0..5000 {
            let kind = plan.kind(number);
            if !seen.contains(&kind) {
                seen.push(kind);
            }
            if kind == Kind::Delete {
                assert_eq!(plan.kind(number - 1), Kind::Set);
            }
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
    }

    #[test]
    fn values_are_unique_and_repeatable() {
        let plan = Plan::new(1, 2, 100);
        assert_eq!(plan.value(7), Plan::new(1, 2, 100).value(7));
        let values: std::collections::HashSet<_> = (0..1000).map(|number| plan.value(number)).collect();
        assert_eq!(values.len(), 1000);
    }
}
