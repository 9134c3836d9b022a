//! An asynchronous client for Holdfast and for any server that speaks the Redis protocol.
//!
//! Clients of a durable store must be able to tell "it did not happen" from "it may have happened": whoever retries an
//! increment without knowing applies it twice. So every [`Error`] of this crate answers [`Error::outcome`], and the code
//! is arranged so that the answer is exact: a request counts as possibly executed from the moment its first byte is
//! handed to the kernel, not before and not after.
//!
//! ```text
//!   Client            which node, reconnecting, retrying what is safe to retry
//!     └─ Connection   one socket, one task that owns it; requests queue up and are pipelined, replies come in order
//!          ├─ Command  what is sent: arguments, the key that it is routed by, whether it reads or writes
//!          └─ Decoder  what comes back: RESP3 (or RESP2) bytes to a Value, bounded in depth and size
//! ```
//!
//! [`Client`] is what programs use; it is cheap to clone and its clones share the connection. [`Connection`] is for those
//! who need to know that two commands ran on the same connection (`MULTI`, `SELECT`, `CLIENT ...`): it never reconnects.
//!
//! ```no_run
//! # async fn example() -> Result<(), holdfast_client::Error> {
//! use holdfast_client::{Client, Command, Config};
//! let client = Client::new(Config::new("127.0.0.1:6379".parse()?));
//! client.set("greeting", "hello").await?;
//! assert_eq!(client.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
//! let length = client.call(Command::read("STRLEN").key("greeting")).await?;
//! # Ok(()) }
//! ```
//!
//! Writes that must not be repeated blindly can be numbered, and are then repeated safely: [`Client::exactly_once`].
//!
//! In a cluster the client finds the leader from any node, follows it when it changes, and stays with it. It talks to one node
//! at a time. What several leaders will need is in place: a command names the key that it is routed by, and one place in
//! [`Client`] picks the connection.

mod api;
mod client;
mod command;
mod config;
mod connection;
mod decode;
mod error;
mod nodes;
pub mod session;
mod value;

pub use api::{Expiry, Scan, ScanOptions, SetCondition, SetOptions, TimeToLive};
pub use client::Client;
pub use command::{Command, Effect};
pub use config::{Address, Config, Retry};
pub use connection::{Connection, Protocol};
pub use decode::{Decoder, Limits, ProtocolError};
pub use error::{Error, Outcome, Redirect, ServerError};
pub use session::NumberedWrite;
pub use value::Value;
