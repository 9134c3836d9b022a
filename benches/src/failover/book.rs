//! What a writer did, and whether the cluster still knows it.

use crate::crash::Reader;
use crate::crash::ledger::parse_number;

/// Keys that are asked for at once.
const KEYS_PER_READ: usize = 256;
/// Operations whose numbers share one list: a list stays short.
const OPERATIONS_PER_LIST: u64 = 1500;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `SET` of a key that is never used again.
    Set,
    /// `APPEND` of the operation's number to a list of numbers: tried twice, it may be there twice.
    Append,
    /// `INCR` of the writer's counter.
    Increment,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened.
    Acknowledged,
    /// It did not happen, and will not.
    Refused,
    /// It may have happened, or happen yet.
    Unknown,
}

/// All attempts of one operation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fate {
    acknowledged: bool,
    unknown: u32,
}

impl Fate {
    /// How often the operation may have happened: at least, at most.
    fn times(self) -> (u64, u64) {
        let least = u64::from(self.acknowledged);
        (least, least + u64::from(self.unknown))
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Operations that were acknowledged; all of them are there.
    pub acknowledged: u64,
    /// Attempts of unknown outcome.
    pub unknown: u64,
    /// Those of them that had happened.
    pub happened: u64,
}

/// The book of one writer.
#[derive(Debug)]
pub struct Book {
    writer: u64,
    fates: Vec<Fate>,
}

/// The key of a writer's counter.
pub fn counter_key(writer: u64) -> String {
    format!("c:{writer}")
}

impl Book {
    /// An empty book.
    pub fn new(writer: u64) -> Self {
        Book { writer, fates: Vec::new() }
    }

    /// Begins the next operation, and gives its number.
    pub fn begin(&mut self) -> u64 {
        self.fates.push(Fate::default());
        self.fates.len() as u64 - 1
    }

    /// Enters how an attempt of the newest operation ended.
    pub fn enter(&mut self, outcome: Outcome) {
        if let Some(fate) = self.fates.last_mut() {
            match outcome {
                Outcome::Acknowledged => fate.acknowledged = true,
                Outcome::Refused => {}
                Outcome::Unknown => fate.unknown += 1,
            }
        }
    }

    /// What an operation does.
    pub fn kind(number: u64) -> Kind {
        [Kind::Set, Kind::Append, Kind::Increment][(number % 3) as usize]
    }

    /// The key that an operation writes.
    pub fn key(&self, number: u64) -> String {
        match Self::kind(number) {
            Kind::Set => format!("s:{}:{number}", self.writer),
            Kind::Append => format!("a:{}:{}", self.writer, number / OPERATIONS_PER_LIST),
            Kind::Increment => counter_key(self.writer),
        }
    }

    /// What it writes: the value of a SET, what an APPEND adds.
    pub fn value(&self, number: u64) -> String {
        match Self::kind(number) {
            Kind::Set => format!("{}-{number}", self.writer),
            Kind::Append => format!("{number},"),
            Kind::Increment => String::new(),
        }
    }

    /// Compares the book with what the cluster has.
    ///
    /// # Errors
    /// The story, if something is lost, invented, or there too often.
    pub fn check(&self, reader: &mut dyn Reader) -> Result<Checked, String> {
        let mut checked = Checked::default();
        for fate in &self.fates {
            checked.acknowledged += u64::from(fate.acknowledged);
            checked.unknown += u64::from(fate.unknown);
        }
        self.check_sets(reader, &mut checked)?;
        self.check_lists(reader, &mut checked)?;
        self.check_counter(reader, &mut checked)?;
        Ok(checked)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (u64, Fate)> + '_ {
        (0..).zip(self.fates.iter().copied()).filter(move |(number, _)| Self::kind(*number) == kind)
    }

    fn check_sets(&self, reader: &mut dyn Reader, checked: &mut Checked) -> Result<(), String> {
        let all: Vec<(u64, Fate)> = self.of(Kind::Set).collect();
        for part in all.chunks(KEYS_PER_READ) {
            let keys: Vec<Vec<u8>> = part.iter().map(|(number, _)| self.key(*number).into_bytes()).collect();
            for ((number, fate), found) in part.iter().zip(read(reader, &keys)?) {
                let (key, wanted) = (self.key(*number), self.value(*number));
                match found {
                    None if fate.acknowledged => return Err(format!("LOST: {key} was acknowledged and is not there")),
                    Some(found) if found != wanted.as_bytes() => {
                        return Err(format!("WRONG: {key} holds `{}`, not `{wanted}`", found.escape_ascii()));
                    }
                    Some(_) if *fate == Fate::default() => {
                        return Err(format!("INVENTED: {key} is there, but every attempt was refused"));
                    }
                    Some(_) if !fate.acknowledged => checked.happened += 1,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn check_lists(&self, reader: &mut dyn Reader, checked: &mut Checked) -> Result<(), String> {
        let mut lists: Vec<String> = self.of(Kind::Append).map(|(number, _)| self.key(number)).collect();
        lists.dedup();
        let mut times = vec![0u64; self.fates.len()];
        for part in lists.chunks(KEYS_PER_READ) {
            let keys: Vec<Vec<u8>> = part.iter().map(|key| key.clone().into_bytes()).collect();
            for (key, found) in part.iter().zip(read(reader, &keys)?) {
                for item in found.unwrap_or_default().split(|byte| *byte == b',').filter(|item| !item.is_empty()) {
                    let number = parse_number(item).filter(|number| {
                        *number < times.len() as u64 && Self::kind(*number) == Kind::Append && self.key(*number) == *key
                    });
                    let number = number
                        .ok_or_else(|| format!("WRONG: {key} holds `{}`, which nobody wrote", item.escape_ascii()))?;
                    times[number as usize] += 1;
                }
            }
        }
        for (number, fate) in self.of(Kind::Append) {
            let (least, most) = fate.times();
            let found = times[number as usize];
            let key = self.key(number);
            if found < least {
                return Err(format!("LOST: {number} was acknowledged and is not in {key}"));
            }
            if found > most {
                return Err(format!("DUPLICATED: {number} is {found} times in {key}, {most} at most were asked for"));
            }
            checked.happened += found - least;
        }
        Ok(())
    }

    fn check_counter(&self, reader: &mut dyn Reader, checked: &mut Checked) -> Result<(), String> {
        let (mut least, mut most) = (0, 0);
        for (_, fate) in self.of(Kind::Increment) {
            let times = fate.times();
            (least, most) = (least + times.0, most + times.1);
        }
        let key = counter_key(self.writer);
        let found = match read(reader, &[key.clone().into_bytes()])?.pop().flatten() {
            None => 0,
            Some(text) => parse_number(&text).ok_or_else(|| format!("WRONG: {key} is `{}`", text.escape_ascii()))?,
        };
        if !(least..=most).contains(&found) {
            let what = if found < least { "LOST" } else { "DUPLICATED" };
            return Err(format!("{what}: {key} is {found}; {least} increments were acknowledged, {most} at most sent"));
        }
        checked.happened += found - least;
        Ok(())
    }
}

fn read(reader: &mut dyn Reader, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, String> {
    let values = reader.read(keys)?;
    if values.len() == keys.len() {
        Ok(values)
    } else {
        Err(format!("{} keys were asked for and {} values came", keys.len(), values.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Default)]
    struct Model(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Reader for Model {
        fn read(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, String> {
            Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
        }
    }

    impl Model {
        fn apply(&mut self, book: &Book, number: u64) {
            let place = self.0.entry(book.key(number).into_bytes()).or_default();
            match Book::kind(number) {
                Kind::Set => *place = book.value(number).into_bytes(),
                Kind::Append => place.extend_from_slice(book.value(number).as_bytes()),
                Kind::Increment => {
                    *place = (parse_number(place).unwrap_or(0) + 1).to_string().into_bytes();
                }
            }
        }
    }

    /// Three thousand operations, one of which ended otherwise and was applied so many times.
    fn checked(odd: u64, outcomes: &[Outcome], times: usize) -> Result<Checked, String> {
        let (mut book, mut model) = (Book::new(7), Model::default());
        for number in 0..3000 {
            assert_eq!(book.begin(), number);
            if number == odd {
                outcomes.iter().for_each(|outcome| book.enter(*outcome));
                (0..times).for_each(|_| model.apply(&book, number));
            } else {
                book.enter(Outcome::Acknowledged);
                model.apply(&book, number);
            }
        }
        book.check(&mut model)
    }

    use Outcome::{Acknowledged, Refused, Unknown};

    #[test]
    fn unknown_attempts_may_have_happened_or_not() {
        for odd in [0, 1, 2, 1501] {
            for times in 0..=1 {
                let found = checked(odd, &[Unknown], times).unwrap();
                let expected = Checked { acknowledged: 2999, unknown: 1, happened: times as u64 };
                assert_eq!(found, expected, "{odd}");
            }
            assert!(checked(odd, &[Unknown, Refused, Acknowledged], 1).is_ok());
        }
        for odd in [1, 2] {
            assert!(checked(odd, &[Unknown, Acknowledged], 2).is_ok());
            assert!(checked(odd, &[Unknown, Acknowledged], 3).unwrap_err().starts_with("DUPLICATED"));
        }
    }

    #[test]
    fn lost_and_duplicated_operations_are_found() {
        for odd in [0, 1, 2] {
            assert!(checked(odd, &[Acknowledged], 0).unwrap_err().starts_with("LOST"), "{odd}");
            assert!(checked(odd, &[Refused, Unknown, Acknowledged], 0).unwrap_err().starts_with("LOST"), "{odd}");
        }
        for odd in [1, 2] {
            assert!(checked(odd, &[Acknowledged], 2).unwrap_err().starts_with("DUPLICATED"), "{odd}");
            assert!(checked(odd, &[Refused], 1).unwrap_err().starts_with("DUPLICATED"), "{odd}");
        }
        assert!(checked(0, &[Refused], 1).unwrap_err().starts_with("INVENTED"));
    }
}
