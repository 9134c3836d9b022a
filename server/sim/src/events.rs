//! What will happen, in order.
//!
//! The queue is the simulation's clock: time is that of the event taken last, and jumps to the next one. Events of the same
//! microsecond come in the order in which they were put in, so nothing depends on how a heap breaks ties.

use std::collections::BTreeMap;

use crate::time::Micros;

/// Names an event that is still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    at: Micros,
    number: u64,
}

/// Events to come, and the time.
///
/// # Invariant
/// No event lies in the past.
#[derive(Debug)]
pub struct Events<E> {
    now: Micros,
    number: u64,
    queue: BTreeMap<EventId, E>,
}

impl<E> Default for Events<E> {
    fn default() -> Self {
        Events::new()
    }
}

impl<E> Events<E> {
    /// No events, at time 0.
    pub fn new() -> Events<E> {
        Events { now: 0, number: 0, queue: BTreeMap::new() }
    }

    /// The present.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Lets something happen at a time.
    ///
    /// # Panics
    /// If that time has passed.
    pub fn push(&mut self, at: Micros, event: E) -> EventId {
        assert!(at >= self.now, "an event at {at} us, but it is {} us", self.now);
        self.number += 1;
        let id = EventId { at, number: self.number };
        self.queue.insert(id, event);
        id
    }

    /// Lets something happen after a span.
    pub fn push_after(&mut self, span: Micros, event: E) -> EventId {
        self.push(self.now + span, event)
    }

    /// Takes an event back; `None` if it has happened or was taken back already.
    pub fn cancel(&mut self, id: EventId) -> Option<E> {
        self.queue.remove(&id)
    }

    /// When the next event is due.
    pub fn next_time(&self) -> Option<Micros> {
        self.queue.first_key_value().map(|(id, _)| id.at)
    }

    /// Goes to the next event and takes it; `None` if nothing will ever happen again.
    pub fn pop(&mut self) -> Option<(Micros, E)> {
        self.pop_until(Micros::MAX)
    }

    /// Goes to the next event that is due at `until` or before, and takes it. If there is none, goes to `until`; the present
    /// stays where it is if that has passed or is the end of time.
    pub fn pop_until(&mut self, until: Micros) -> Option<(Micros, E)> {
        match self.queue.first_entry() {
            Some(entry) if entry.key().at <= until => {
                let (id, event) = entry.remove_entry();
                debug_assert!(id.at >= self.now);
                self.now = id.at;
                Some((id.at, event))
            }
            _ => {
                if until != Micros::MAX {
                    self.now = self.now.max(until);
                }
                None
            }
        }
    }

    /// Keeps only the events for which the condition holds: what was on its way to a node that is gone.
    pub fn retain(&mut self, mut keep: impl FnMut(Micros, &E) -> bool) {
        self.queue.retain(|id, event| keep(id.at, event));
    }

    /// The number of events to come.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing will ever happen again.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_are_broken_by_insertion() {
        let mut events = Events::new();
        for (at, event) in [(5, "c"), (3, "a"), (5, "d"), (3, "b"), (9, "e")] {
            events.push(at, event);
        }
        let order: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        assert_eq!(order, [(3, "a"), (3, "b"), (5, "c"), (5, "d"), (9, "e")]);
        assert_eq!(events.now(), 9);
    }

    #[test]
    fn time_goes_no_further_than_asked() {
        let mut events = Events::new();
        events.push(10, ());
        assert_eq!(events.pop_until(4), None);
        assert_eq!(events.now(), 4);
        assert_eq!(events.pop_until(10), Some((10, ())));
        assert_eq!(events.pop(), None);
        assert_eq!(events.now(), 10);
        events.push_after(5, ());
        assert_eq!(events.next_time(), Some(15));
    }

    #[test]
    fn cancelled_events_do_not_happen() {
        let mut events = Events::new();
        let first = events.push(1, 'a');
        events.push(2, 'b');
        events.push(3, 'c');
        assert_eq!(events.cancel(first), Some('a'));
        assert_eq!(events.cancel(first), None);
        events.retain(|_, event| *event != 'b');
        assert_eq!(events.pop(), Some((3, 'c')));
        assert!(events.is_empty());
    }

    #[test]
    #[should_panic(expected = "an event at 1 us, but it is 2 us")]
    fn past_is_closed() {
        let mut events = Events::new();
        events.push(2, ());
        events.pop();
        events.push(1, ());
    }
}
