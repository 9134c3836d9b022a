//! From the bytes of a stream to its frames.
//!
//! The buffer grows by what has arrived, at most twofold a read, never by what is announced: a head that promises a gigabyte
//! costs nothing until the bytes are there. A frame that makes up at least a quarter of the buffer is adopted with it, so that
//! its payload is not copied; smaller ones are read in place, and their payloads copied out.

use super::format::{self, FormatError, Frame, HEAD_BYTES, Head, PINNED_RATIO_MAX};
use bytes::Bytes;

/// Room for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Frames below this are never adopted: the copy is cheaper than giving the buffer away.
const ADOPTED_BYTES_MIN: usize = READ_BYTES / PINNED_RATIO_MAX;

/// Collects the bytes of one stream and cuts them into frames.
#[derive(Debug)]
pub struct FrameBuffer {
    input: Vec<u8>,
    /// Bytes at the front of `input` that were taken.
    start: usize,
    /// What the frame at `start` takes, as far as that is known.
    need: usize,
    frame_bytes_max: usize,
}

impl FrameBuffer {
    /// An empty buffer that refuses frames with a body over `frame_bytes_max`.
    pub fn new(frame_bytes_max: usize) -> Self {
        FrameBuffer { input: Vec::new(), start: 0, need: 0, frame_bytes_max }
    }

    /// The vector to append to, with room for a read.
    pub fn room(&mut self) -> &mut Vec<u8> {
        self.input.drain(..self.start);
        self.start = 0;
        let len = self.input.len();
        self.input.reserve_exact(self.need.saturating_sub(len).clamp(READ_BYTES, len.max(READ_BYTES)));
        &mut self.input
    }

    /// Whether a frame has begun and is not complete.
    pub fn is_partial(&self) -> bool {
        self.start < self.input.len()
    }

    /// The memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.input.capacity()
    }

    /// Takes the next complete frame; `None` if there is none yet.
    ///
    /// # Errors
    /// If the bytes are no frame. Nothing after them can be read either.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FormatError> {
        let Some((head, rest)) = self.input[self.start..].split_first_chunk::<HEAD_BYTES>() else {
            self.need = HEAD_BYTES;
            self.rest();
            return Ok(None);
        };
        let head = Head::decode(head, self.frame_bytes_max)?;
        let bytes = HEAD_BYTES + head.length;
        let Some(body) = rest.get(..head.length) else {
            self.need = bytes;
            return Ok(None);
        };
        self.need = 0;
        let pinned_bytes = self.input.capacity();
        if self.start > 0 || bytes < ADOPTED_BYTES_MIN || bytes.saturating_mul(PINNED_RATIO_MAX) < pinned_bytes {
            let frame = format::decode_borrowed(head, body)?;
            self.start += bytes;
            return Ok(Some(frame));
        }
        let rest = self.input.split_off(bytes);
        let whole = Bytes::from(std::mem::replace(&mut self.input, rest));
        format::decode_pinning(head, &whole.slice(HEAD_BYTES..), pinned_bytes).map(Some)
    }

    /// Gives a large buffer back once it is empty.
    fn rest(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
            if self.input.capacity() > READ_BYTES {
                self.input = Vec::new();
            }
        }
    }
}
