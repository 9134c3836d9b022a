//! What the database can be told to do: one table of commands, and what each of them does to keys.
//!
//! Motive: a command's name, arity, flags and key positions are asked for by the parser (is it complete?), the router
//! (which slots?), the log (which number?), `COMMAND` (what does a client library need to know?) and the handler. One
//! table answers all of them, so that they can't disagree.
//!
//! ```text
//! argv ──resolve──▶ &CommandSpec ──check_sizes, keys_of, needs──▶ the shard: route, fetch, log
//!                        │
//!                        └─handler──▶ Exec { keys, args, reply, now_ms } ──▶ one RESP value in the reply
//! ```
//!
//! Flow: this hop takes the slices of one request (from `resp`) and gives a [`CommandSpec`] to the shard. A read runs at
//! once; a write is logged as the number of its command and its arguments, and runs when the entry is applied, on every
//! replica, through the very same handler.
//!
//! Caveats, which every handler keeps:
//! - The result depends on the keyspace, the arguments and `now_ms` only: no clock, no randomness, no iteration over
//!   unordered maps. Replicas that apply the same entry must end with the same bytes.
//! - A handler never looks at `args[0]` (nor at `args[1]` where that names a subcommand): the log doesn't keep them.
//! - A handler either writes exactly one reply and returns `Ok`, or writes nothing, changes nothing and returns the
//!   [`Failure`] that [`CommandSpec::execute`] turns into an error reply.

mod bitfield;
mod bits;
mod cas;
mod dump;
mod exec;
mod expire;
#[cfg(test)]
mod facts_tests;
mod failure;
pub mod glob;
mod introspect;
#[cfg(test)]
mod introspect_tests;
mod keys;
mod keyspec;
mod lcs;
pub mod mem;
mod memory;
mod needs;
mod numbers;
mod object;
mod resolve;
mod spec;
mod special;
mod strings;
mod syntax;
mod table;

pub use exec::{Exec, Keyspace};
pub use failure::Failure;
pub use keyspec::{KeyAccess, KeySpec, keys_of};
pub use needs::Needs;
pub use resolve::{Rejection, check_sizes, resolve};
pub use spec::{CommandSpec, Connection, Group, Handler, Special, category, flag};
pub use special::{SCAN_COUNT_DEFAULT, ScanOptions, ShutdownOptions, SlotOptions, WaitOptions, parse_node};
pub use table::{all, by_id, lookup};

/// Integers in commands are read by the same rule as lengths in the protocol.
pub use crate::resp::parse_integer as parse_i64;

/// The longest key that is accepted, in bytes.
pub const KEY_BYTES_MAX: usize = 512 * 1024;

/// The longest value that is accepted unless a setting says otherwise, in bytes.
pub const VALUE_BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;
