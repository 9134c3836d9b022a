//! The bytes that wait to be sent on one connection.
//!
//! ```text
//!   bytes   [ $3\r\nabc\r\n$65536\r\n | \r\n:1\r\n ]        one contiguous vector, appended to
//!                                   ▲
//!   shared  ────────────────── 64 KiB value                 spliced in at a position of `bytes`, never copied
//! ```
//!
//! Small replies are copied into the vector; a value of [`SHARED_BYTES_MIN`] or more is held by reference count and
//! remembered with the position at which it belongs. The socket takes both in order as slices for a vectored write
//! and then says how many bytes it accepted.
//!
//! Invariants: positions of shared segments never decrease, none lies before `sent` or after the end of `bytes`, no
//! shared segment is empty, and `len_bytes` is what [`Output::io_slices`] would yield with room for all.

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Values of at least this many bytes are queued by reference instead of being copied.
pub const SHARED_BYTES_MIN: usize = 32 * 1024;

/// An emptied buffer larger than this gives its memory back.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Sent bytes at the front are cut off once they are this many and at least half of the buffer.
const COMPACT_BYTES_MIN: usize = 64 * 1024;

/// Replies waiting for a socket: one contiguous buffer with shared segments spliced in.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// How much of `bytes` has been sent.
    sent: usize,
    /// Segments, each with the length that `bytes` had when it was queued.
    shared: VecDeque<(usize, Bytes)>,
    /// Sum of the lengths of `shared`.
    shared_bytes: usize,
}

/// A place in an [`Output`] to which it can be rewound, as long as nothing was sent since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    bytes: usize,
    shared: usize,
}

impl Output {
    /// An empty output that owns no memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes not yet sent.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len() - self.sent + self.shared_bytes
    }

    /// Whether everything has been sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }

    /// Memory that this output holds on to, in bytes: the buffer's capacity and the shared segments.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.shared_bytes + self.shared.capacity() * size_of::<(usize, Bytes)>()
    }

    /// Appends bytes that are already in wire form.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Makes room for `additional` bytes in one step.
    #[inline]
    pub fn reserve(&mut self, additional: usize) {
        self.bytes.reserve(additional);
    }

    /// Appends a shared segment. Small ones are copied, since a slice of its own costs more than the copy.
    pub fn extend_shared(&mut self, segment: &Bytes) {
        if segment.len() < SHARED_BYTES_MIN {
            self.bytes.extend_from_slice(segment);
        } else {
            self.shared.push_back((self.bytes.len(), segment.clone()));
            self.shared_bytes += segment.len();
        }
    }

    /// Appends a shared segment, however small.
    pub(crate) fn splice_shared(&mut self, segment: &Bytes) {
        if !segment.is_empty() {
            self.shared.push_back((self.bytes.len(), segment.clone()));
            self.shared_bytes += segment.len();
        }
    }

    /// Fills `slices` with what is to be sent next, in order, and returns how many slices it used. With fewer slices
    /// than pieces the rest follows at the next call.
    pub fn io_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        let mut at = self.sent;
        for (position, segment) in &self.shared {
            if *position > at {
                let Some(slot) = slices.get_mut(used) else { return used };
                *slot = IoSlice::new(&self.bytes[at..*position]);
                used += 1;
                at = *position;
            }
            let Some(slot) = slices.get_mut(used) else { return used };
            *slot = IoSlice::new(segment);
            used += 1;
        }
        if at < self.bytes.len()
            && let Some(slot) = slices.get_mut(used)
        {
            *slot = IoSlice::new(&self.bytes[at..]);
            used += 1;
        }
        used
    }

    /// The whole output as one slice, if no shared segment is queued: the common case, for a plain `write`.
    #[inline]
    pub fn as_contiguous(&self) -> Option<&[u8]> {
        self.shared.is_empty().then(|| &self.bytes[self.sent..])
    }

    /// Drops the first `sent_bytes` bytes, which the socket has taken, and gives memory back when it can.
    ///
    /// # Panics
    /// If `sent_bytes` is more than [`Output::len_bytes`].
    pub fn advance(&mut self, sent_bytes: usize) {
        assert!(sent_bytes <= self.len_bytes(), "more bytes sent than were waiting");
        let mut left = sent_bytes;
        while left > 0 {
            let contiguous_end = self.shared.front().map_or(self.bytes.len(), |(position, _)| *position);
            let step = left.min(contiguous_end - self.sent);
            self.sent += step;
            left -= step;
            if left > 0
                && let Some((_, segment)) = self.shared.front_mut()
            {
                let step = left.min(segment.len());
                segment.advance(step);
                self.shared_bytes -= step;
                left -= step;
                if segment.is_empty() {
                    self.shared.pop_front();
                }
            }
        }
        self.give_back();
    }

    /// Where the output ends now, for [`Output::rewind`].
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), shared: self.shared.len() }
    }

    /// Drops everything appended since `mark` was taken: replies that a client asked not to get, or a half-written
    /// reply that turned into an error.
    ///
    /// # Panics
    /// If bytes were sent since the mark was taken (its place may be gone).
    pub fn rewind(&mut self, mark: Mark) {
        assert!(
            mark.bytes >= self.sent && mark.bytes <= self.bytes.len() && mark.shared <= self.shared.len(),
            "a mark is only good until bytes are sent"
        );
        self.bytes.truncate(mark.bytes);
        for (_, segment) in self.shared.drain(mark.shared..) {
            self.shared_bytes -= segment.len();
        }
    }

    /// Bytes appended since `mark`.
    pub fn len_bytes_since(&self, mark: Mark) -> usize {
        self.bytes.len() - mark.bytes
            + self.shared.iter().skip(mark.shared).map(|(_, segment)| segment.len()).sum::<usize>()
    }

    /// Inserts `bytes` at `mark`: a header whose count was not known when its elements were written.
    pub(crate) fn insert_at(&mut self, mark: Mark, bytes: &[u8]) {
        assert!(mark.bytes >= self.sent && mark.bytes <= self.bytes.len(), "a mark is only good until bytes are sent");
        self.bytes.splice(mark.bytes..mark.bytes, bytes.iter().copied());
        for (position, _) in self.shared.iter_mut().skip(mark.shared) {
            *position += bytes.len();
        }
    }

    /// Replaces the bytes at `mark`, which were appended as a place for what was not known then.
    pub(crate) fn overwrite_at(&mut self, mark: Mark, bytes: &[u8]) {
        assert!(mark.bytes >= self.sent, "a mark is only good until bytes are sent");
        self.bytes[mark.bytes..mark.bytes + bytes.len()].copy_from_slice(bytes);
    }

    /// What was appended since `mark`, in order, without the first `skipped` bytes, which were not shared ones.
    pub(crate) fn for_each_since(&self, mark: Mark, skipped: usize, mut visit: impl FnMut(&[u8])) {
        let mut at = mark.bytes + skipped;
        for (position, segment) in self.shared.iter().skip(mark.shared) {
            visit(&self.bytes[at..*position]);
            visit(segment);
            at = *position;
        }
        visit(&self.bytes[at..]);
    }

    /// Moves everything that `other` holds to the end of this output; `other` is empty afterwards.
    pub fn append(&mut self, other: &mut Output) {
        let base = self.bytes.len();
        let sent = other.sent;
        self.bytes.extend_from_slice(&other.bytes[sent..]);
        self.shared.extend(other.shared.drain(..).map(|(position, segment)| (position - sent + base, segment)));
        self.shared_bytes += other.shared_bytes;
        other.clear();
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        self.shared.clear();
        self.shared_bytes = 0;
        self.sent = self.bytes.len();
        self.give_back();
    }

    /// Copies all that waits into one vector, for tests and for replies that travel inside other messages.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len_bytes());
        let mut at = self.sent;
        for (position, segment) in &self.shared {
            all.extend_from_slice(&self.bytes[at..*position]);
            all.extend_from_slice(segment);
            at = *position;
        }
        all.extend_from_slice(&self.bytes[at..]);
        all
    }

    /// Resets an emptied buffer, and cuts the sent front off one that a slow reader keeps from emptying.
    fn give_back(&mut self) {
        if self.sent == self.bytes.len() && self.shared.is_empty() {
            self.bytes.clear();
            self.sent = 0;
            if self.bytes.capacity() > KEPT_BYTES_MAX {
                self.bytes = Vec::new();
            }
            if self.shared.capacity() > 64 {
                self.shared = VecDeque::new();
            }
        } else if self.sent >= COMPACT_BYTES_MIN && self.sent * 2 >= self.bytes.len() {
            self.bytes.drain(..self.sent);
            for (position, _) in &mut self.shared {
                *position -= self.sent;
            }
            self.sent = 0;
            self.bytes.shrink_to(self.bytes.len().max(KEPT_BYTES_MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sends everything through slices, at most `slices_max` at a time and `step` bytes a call.
    fn drain(output: &mut Output, slices_max: usize, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !output.is_empty() {
            let mut slices = vec![IoSlice::new(&[]); slices_max];
            let used = output.io_slices(&mut slices);
            assert!(used > 0, "a waiting output yields a slice");
            let mut taken = 0;
            for slice in &slices[..used] {
                let part = slice.len().min(step - taken);
                sent.extend_from_slice(&slice[..part]);
                taken += part;
            }
            assert!(taken > 0);
            output.advance(taken);
        }
        sent
    }

    proptest! {
        #[test]
        fn any_partial_writes_deliver_all_bytes_in_order(
            pieces in proptest::collection::vec((any::<bool>(), 0usize..5000, any::<u8>()), 0..20),
            slices_max in 1usize..5,
            step in 1usize..100_000,
        ) {
            let mut output = Output::new();
            let mut expected = Vec::new();
            for (shared, len, fill) in pieces {
                if shared {
                    let segment = Bytes::from(vec![fill; len + SHARED_BYTES_MIN]);
                    output.extend_shared(&segment);
                    expected.extend_from_slice(&segment);
                } else {
                    output.extend(&vec![fill; len]);
                    expected.extend(vec![fill; len]);
                }
            }
            prop_assert_eq!(output.len_bytes(), expected.len());
            prop_assert_eq!(output.to_vec(), expected.clone());
            prop_assert_eq!(drain(&mut output, slices_max, step), expected);
        }
    }

    #[test]
    fn large_value_is_shared_not_copied() {
        let value = Bytes::from(vec![7u8; SHARED_BYTES_MIN]);
        let mut output = Output::new();
        output.extend_shared(&value);
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(output.io_slices(&mut slices), 1);
        assert_eq!(slices[0].as_ptr(), value.as_ptr());
        assert!(output.as_contiguous().is_none());
    }

    #[test]
    fn rewind_drops_what_came_after_the_mark() {
        let mut output = Output::new();
        output.extend(b"keep");
        let mark = output.mark();
        output.extend(b"drop");
        output.extend_shared(&Bytes::from(vec![1u8; SHARED_BYTES_MIN]));
        assert_eq!(output.len_bytes_since(mark), 4 + SHARED_BYTES_MIN);
        output.rewind(mark);
        assert_eq!(output.to_vec(), b"keep");
        assert_eq!(output.len_bytes(), 4);
    }

    #[test]
    fn emptied_large_buffer_gives_memory_back() {
        let mut output = Output::new();
        output.extend(&vec![0u8; 4 * KEPT_BYTES_MAX]);
        output.advance(4 * KEPT_BYTES_MAX);
        assert!(output.memory_bytes() <= KEPT_BYTES_MAX);
    }

    #[test]
    fn slow_reader_does_not_pin_sent_bytes() {
        let mut output = Output::new();
        for _ in 0..100 {
            output.extend(&[1u8; 32 * 1024]);
            output.advance(output.len_bytes() - 16 * 1024);
        }
        assert_eq!(output.len_bytes(), 16 * 1024);
        assert!(output.memory_bytes() < 512 * 1024, "holds {}", output.memory_bytes());
    }

    #[test]
    fn append_moves_shared_segments_to_their_place() {
        let big = Bytes::from(vec![9u8; SHARED_BYTES_MIN]);
        let mut source = Output::new();
        source.extend(b"xxab");
        source.extend_shared(&big);
        source.extend(b"cd");
        source.advance(2);
        let mut target = Output::new();
        target.extend(b"12");
        target.append(&mut source);
        let expected = [b"12ab".as_slice(), &big, b"cd"].concat();
        assert_eq!(target.to_vec(), expected);
        assert_eq!(target.len_bytes(), expected.len());
        assert!(source.is_empty());
    }
}
