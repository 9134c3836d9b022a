//! How far a writer got, and whether the server still knows it.

use super::plan::{Kind, Plan};

/// Keys that are asked for at once.
const KEYS_PER_READ: usize = 256;

/// Where the checker reads: the server, or a map in tests.
pub trait Reader {
    /// The values of keys, in order; `None` for those that do not exist.
    ///
    /// # Errors
    /// If they can't be read, which ends the campaign.
    fn read(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, String>;
}

/// Operations between two crashes: `start..applied_end` happened, `applied_end..end` did not and never will.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    applied_end: u64,
    end: u64,
}

/// What became of the operations of a round that were not acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// Acknowledged ones.
    pub acknowledged: u64,
    /// Sent, but not acknowledged.
    pub in_doubt: u64,
    /// Those of them that had happened.
    pub applied_in_doubt: u64,
}

/// The book of one writer.
#[derive(Debug)]
pub struct Ledger {
    plan: Plan,
    spans: Vec<Span>,
    next: u64,
    /// Applied increments of its own counter, and the number of the last applied write of its register.
    increments: u64,
    register: Option<u64>,
}

/// What was read about one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Present,
    Absent,
    /// It leaves no key of its own.
    Nothing,
}

impl Ledger {
    /// An empty book over a list.
    pub fn new(plan: Plan) -> Self {
        Ledger { plan, spans: Vec::new(), next: 0, increments: 0, register: None }
    }

    /// The list.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The operation to begin the next round with.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Closes a round in which operations up to `sent_end` were sent and those up to `acked_end` were acknowledged: finds
    /// the prefix that the server's state shows.
    ///
    /// # Errors
    /// The story, if no prefix that contains everything acknowledged explains what is read.
    pub fn settle(&mut self, acked_end: u64, sent_end: u64, reader: &mut dyn Reader) -> Result<Settled, String> {
        let start = self.next;
        assert!(start <= acked_end && acked_end <= sent_end, "{start} {acked_end} {sent_end}");
        let seen = self.look(start, sent_end, reader)?;
        let own = reader.read(&[self.plan.counter(), self.plan.register()])?;
        let counter = match own.first().cloned().flatten() {
            None => 0,
            Some(text) => parse_number(&text).ok_or_else(|| {
                format!("the counter c_{} holds `{}`, which is no number", self.plan.writer(), text.escape_ascii())
            })?,
        };
        let register = own.get(1).cloned().flatten();
        let fits = |end: &u64| self.fits(start, *end, &seen, counter, register.as_deref());
        // Prefixes that end in increments of the shared counter look alike; the longest stands for all.
        let Some(applied_end) = (acked_end..=sent_end).rev().find(fits) else {
            return Err(self.story(start, acked_end, sent_end, &seen, counter, register.as_deref()));
        };
        for number in start..applied_end {
            match self.plan.kind(number) {
                Kind::Increment => self.increments += 1,
                Kind::Register => self.register = Some(number),
                _ => {}
            }
        }
        self.spans.push(Span { start, applied_end, end: sent_end });
        self.next = sent_end;
        Ok(Settled {
            acknowledged: acked_end - start,
            in_doubt: sent_end - acked_end,
            applied_in_doubt: applied_end - acked_end,
        })
    }

    /// Reads again what earlier rounds had settled, the last `rounds` of them; gives how many operations.
    ///
    /// # Errors
    /// The story, if something changed.
    pub fn recheck(&self, rounds: usize, reader: &mut dyn Reader) -> Result<u64, String> {
        let first = self.spans.len().saturating_sub(rounds);
        let mut checked = 0;
        for span in &self.spans[first..] {
            let seen = self.look(span.start, span.end, reader)?;
            for (number, seen) in (span.start..span.end).zip(&seen) {
                let expected = self.expected(number, |number| self.is_applied(number));
                if *seen != expected {
                    return Err(format!(
                        "{} was {expected:?} after an earlier crash and is {seen:?} now",
                        self.describe(number)
                    ));
                }
                checked += 1;
            }
        }
        Ok(checked)
    }

    /// Increments of the shared counter among operations.
    pub fn shared_increments(&self, start: u64, end: u64) -> u64 {
        (start..end).filter(|number| self.plan.kind(*number) == Kind::IncrementShared).count() as u64
    }

    fn is_applied(&self, number: u64) -> bool {
        let after = self.spans.partition_point(|span| span.end <= number);
        self.spans.get(after).is_some_and(|span| span.start <= number && number < span.applied_end)
    }

    /// What must be seen of an operation if `applied` says which ones happened.
    fn expected(&self, number: u64, applied: impl Fn(u64) -> bool) -> Seen {
        match self.plan.kind(number) {
            Kind::Set | Kind::SetLarge | Kind::MultiSet => {
                let deleted = self.plan.kind(number + 1) == Kind::Delete && applied(number + 1);
                if applied(number) && !deleted { Seen::Present } else { Seen::Absent }
            }
            _ => Seen::Nothing,
        }
    }

    fn fits(&self, start: u64, end: u64, seen: &[Seen], counter: u64, register: Option<&[u8]>) -> bool {
        let happened = |number: u64| number < end;
        let (mut increments, mut last_register) = (self.increments, self.register);
        for (offset, seen) in seen.iter().enumerate() {
            let number = start + offset as u64;
            if *seen != self.expected(number, happened) {
                return false;
            }
            match self.plan.kind(number) {
                Kind::Increment if happened(number) => increments += 1,
                Kind::Register if happened(number) => last_register = Some(number),
                _ => {}
            }
        }
        counter == increments && register == last_register.map(|number| self.plan.value(number)).as_deref()
    }

    /// Reads the keys of operations. A value that nobody wrote, or a torn multi-key write, is an error at once.
    fn look(&self, start: u64, end: u64, reader: &mut dyn Reader) -> Result<Vec<Seen>, String> {
        let mut all = Vec::with_capacity((end - start) as usize);
        let mut number = start;
        while number < end {
            let mut keys = Vec::new();
            let first = number;
            while number < end && keys.len() < KEYS_PER_READ {
                keys.extend(self.plan.keys(number));
                number += 1;
            }
            let values = if keys.is_empty() { Vec::new() } else { reader.read(&keys)? };
            if values.len() != keys.len() {
                return Err(format!("{} keys were asked for and {} values came", keys.len(), values.len()));
            }
            let mut rest = keys.iter().zip(&values);
            for operation in first..number {
                let count = self.plan.keys(operation).len();
                all.push(self.judge(operation, &rest.by_ref().take(count).collect::<Vec<_>>())?);
            }
        }
        Ok(all)
    }

    fn judge(&self, number: u64, found: &[(&Vec<u8>, &Option<Vec<u8>>)]) -> Result<Seen, String> {
        if found.is_empty() {
            return Ok(Seen::Nothing);
        }
        let wanted = self.plan.value(number);
        for (key, value) in found {
            if let Some(value) = value
                && *value != wanted
            {
                return Err(format!(
                    "{}: {} holds {} bytes beginning `{}`, not the {} bytes that were written",
                    self.describe(number),
                    key.escape_ascii(),
                    value.len(),
                    value[..value.len().min(32)].escape_ascii(),
                    wanted.len()
                ));
            }
        }
        let present = found.iter().filter(|(_, value)| value.is_some()).count();
        match present {
            0 => Ok(Seen::Absent),
            all if all == found.len() => Ok(Seen::Present),
            some => Err(format!("{} is torn: {some} of its {} keys exist", self.describe(number), found.len())),
        }
    }

    fn describe(&self, number: u64) -> String {
        format!("operation {number} of writer {} ({:?})", self.plan.writer(), self.plan.kind(number))
    }

    fn story(
        &self,
        start: u64,
        acked_end: u64,
        sent_end: u64,
        seen: &[Seen],
        counter: u64,
        register: Option<&[u8]>,
    ) -> String {
        let mut text = format!(
            "writer {}: operations {start}..{acked_end} were acknowledged, {acked_end}..{sent_end} were sent, and no prefix \
             explains what is there\n",
            self.plan.writer()
        );
        let happened = |number: u64| number < acked_end;
        let lost = (start..acked_end)
            .zip(seen)
            .filter(|(number, seen)| **seen != self.expected(*number, happened) && *number + 1 < acked_end);
        for (number, seen) in lost.take(20) {
            text.push_str(&format!("  {}: acknowledged, but {seen:?}\n", self.describe(number)));
        }
        for number in acked_end..sent_end.min(acked_end + 40) {
            text.push_str(&format!("  {}: in doubt, {:?}\n", self.describe(number), seen[(number - start) as usize]));
        }
        let acked = (start..acked_end).filter(|number| self.plan.kind(*number) == Kind::Increment).count() as u64;
        let sent = (acked_end..sent_end).filter(|number| self.plan.kind(*number) == Kind::Increment).count() as u64;
        let least = self.increments + acked;
        text.push_str(&format!("  counter: {counter}, expected {least} to {}\n", least + sent));
        let last = (start..acked_end).rev().find(|number| self.plan.kind(*number) == Kind::Register).or(self.register);
        text.push_str(&format!(
            "  register: {}, last acknowledged is of operation {last:?}",
            register.map_or("absent".into(), |value| value.escape_ascii().to_string())
        ));
        text
    }
}

/// The number in a counter's value.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// A server whose state a test can damage.
    #[derive(Default)]
    struct Model(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Reader for Model {
        fn read(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, String> {
            Ok(keys.iter().map(|key| self.0.get(key).cloned()).collect())
        }
    }

    impl Model {
        fn apply(&mut self, plan: &Plan, start: u64, end: u64) {
            for number in start..end {
                match plan.kind(number) {
                    Kind::Delete => {
                        self.0.remove(&plan.keys(number - 1)[0]);
                    }
                    Kind::Register => {
                        self.0.insert(plan.register(), plan.value(number));
                    }
                    Kind::Increment => {
                        let value = self.0.entry(plan.counter()).or_insert_with(|| b"0".to_vec());
                        *value = (parse_number(value).unwrap() + 1).to_string().into_bytes();
                    }
                    _ => {
                        for key in plan.keys(number) {
                            self.0.insert(key, plan.value(number));
                        }
                    }
                }
            }
        }
    }

    fn ledger() -> Ledger {
        Ledger::new(Plan::new(5, 1, 40))
    }

    fn find(plan: &Plan, kind: Kind, from: u64) -> u64 {
        (from..).find(|number| plan.kind(*number) == kind).unwrap()
    }

    #[test]
    fn any_prefix_between_acknowledged_and_sent_is_fine() {
        for applied in 100..=130 {
            let (mut ledger, mut model) = (ledger(), Model::default());
            model.apply(ledger.plan(), 0, applied);
            let settled = ledger.settle(100, 130, &mut model).unwrap();
            assert_eq!((settled.acknowledged, settled.in_doubt), (100, 30));
            // What follows builds on it, and the past stays what it was.
            model.apply(ledger.plan(), 130, 200);
            ledger.settle(200, 200, &mut model).unwrap();
            assert_eq!(ledger.recheck(9, &mut model), Ok(200));
        }
    }

    #[test]
    fn lost_acknowledged_write_is_found() {
        let mut missed = Vec::new();
        for lost in 0..100 {
            let (mut ledger, mut model) = (ledger(), Model::default());
            let kind = ledger.plan().kind(lost);
            model.apply(ledger.plan(), 0, lost);
            model.apply(ledger.plan(), lost + 1, 100);
            if ledger.settle(100, 100, &mut model).is_ok() {
                missed.push((lost, kind));
            }
        }
        // Not visible: the shared counter (checked over all writers), an overwritten register, a set deleted right after.
        let plan = ledger().plan().clone();
        for (number, kind) in missed {
            let invisible = match kind {
                Kind::IncrementShared => true,
                Kind::Register => find(&plan, Kind::Register, number + 1) < 100,
                Kind::Set => plan.kind(number + 1) == Kind::Delete,
                _ => false,
            };
            assert!(invisible, "operation {number}, {kind:?}");
        }
    }

    #[test]
    fn hole_among_writes_in_doubt_is_found() {
        let (mut ledger, mut model) = (ledger(), Model::default());
        let hole = find(ledger.plan(), Kind::MultiSet, 100);
        model.apply(ledger.plan(), 0, hole);
        model.apply(ledger.plan(), hole + 1, hole + 20);
        let story = ledger.settle(100, hole + 20, &mut model).unwrap_err();
        assert!(story.contains("no prefix"), "{story}");
    }

    #[test]
    fn torn_multi_key_write_is_found() {
        let (mut ledger, mut model) = (ledger(), Model::default());
        let torn = find(ledger.plan(), Kind::MultiSet, 50);
        model.apply(ledger.plan(), 0, torn + 1);
        model.0.remove(&ledger.plan().keys(torn)[1]);
        let story = ledger.settle(torn, torn + 1, &mut model).unwrap_err();
        assert!(story.contains("torn: 2 of its 3"), "{story}");
    }

    #[test]
    fn foreign_value_is_found() {
        let (mut ledger, mut model) = (ledger(), Model::default());
        model.apply(ledger.plan(), 0, 100);
        let key = ledger.plan().keys(find(ledger.plan(), Kind::MultiSet, 0))[0].clone();
        model.0.get_mut(&key).unwrap().push(b'!');
        assert!(ledger.settle(100, 100, &mut model).unwrap_err().contains("not the"));
    }

    #[test]
    fn doubly_applied_increment_is_found() {
        let (mut ledger, mut model) = (ledger(), Model::default());
        model.apply(ledger.plan(), 0, 100);
        let again = find(ledger.plan(), Kind::Increment, 0);
        model.apply(ledger.plan(), again, again + 1);
        assert!(ledger.settle(100, 100, &mut model).unwrap_err().contains("counter"));
    }

    #[test]
    fn late_appearance_and_late_loss_are_found() {
        let (mut ledger, mut model) = (ledger(), Model::default());
        let late = find(ledger.plan(), Kind::MultiSet, 100);
        model.apply(ledger.plan(), 0, late);
        ledger.settle(late, late + 1, &mut model).unwrap();
        let mut later = Model(model.0.clone());
        later.apply(ledger.plan(), late, late + 1);
        assert!(ledger.recheck(1, &mut later).unwrap_err().contains("is Present now"));
        let gone = ledger.plan().keys(find(ledger.plan(), Kind::MultiSet, 0));
        gone.iter().for_each(|key| drop(model.0.remove(key)));
        assert!(ledger.recheck(1, &mut model).unwrap_err().contains("is Absent now"));
    }
}
