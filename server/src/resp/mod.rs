//! The Redis serialization protocol, RESP2 and RESP3: bytes from a client into commands, results into bytes.
//!
//! ```text
//!  socket ─▶ read buffer ─▶ [`Decoder`] ─▶ argument slices of that buffer ─▶ command
//!  socket ◀─ vectored write ◀─ [`Output`] ◀─ [`Reply`] ◀─────────────────── command
//! ```
//!
//! Nothing here knows a socket, a command or a key. The decoder never copies an argument and never parses a byte of
//! a partial frame twice; the encoder copies small values into one contiguous buffer and queues large ones as shared
//! segments, so that a 64 MiB value leaves the process without having been copied.
//!
//! A client may switch between protocol versions at any time with `HELLO`: a handler always speaks in the terms of
//! RESP3 (maps, sets, doubles, nulls) and [`Reply`] falls back to what RESP2 has.

mod decode;
#[cfg(test)]
mod decode_tests;
mod inline;
mod output;
mod reply;
mod value;

pub use decode::{Decoder, INLINE_BYTES_MAX, Limits, ProtocolError, Step, parse_integer, recycle_args};
pub use inline::split_line;
pub use output::{Mark, Output, SHARED_BYTES_MIN};
pub use reply::{Deferred, ErrorCode, Proto, Reply};
pub use value::{DEPTH_MAX, Value, ValueError};
