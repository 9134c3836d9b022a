//! Checking that a cluster loses nothing, and shows nothing stale, while its leaders fail.
//!
//! ```text
//!   writers ──▶ SET of a new key · APPEND of a number · INCR of a counter ─┐
//!   readers ──▶ GET of the counters                                        ├─▶ cluster ◀── faults: kill -9, SIGSTOP
//!   prober  ──▶ who serves again, and when                                 ┘
//! ```
//!
//! Every attempt of a writer ends in one of three ways: acknowledged, refused (a definite no), or unknown. An operation is
//! tried until it is acknowledged, and the [`book`] keeps how many of its attempts are unknown. So at the end each operation
//! must be there at least as often as it was acknowledged, and at most once more for each unknown attempt.
//!
//! A counter only grows, whatever happens to late attempts. So a read that gives less than what was acknowledged, or read by
//! anybody, before it began is stale: [`load`] notices that at once.
//!
//! The processes and what is known of them are in [`crate::cluster`].

pub mod book;
pub mod load;
