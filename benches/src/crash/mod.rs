//! Checking what a server still knows after it was killed.
//!
//! Each writer works through an endless list of operations that is a pure function of (seed, writer, number): see
//! [`plan`]. So nothing that was written has to be remembered, only how far each writer got: [`ledger`].
//!
//! A connection's commands are executed in order and go into one log. So after a crash the state must be that of a
//! *prefix* of the writer's list, at least as long as what was acknowledged and at most as long as what was sent. The
//! checker tries every such prefix against what it reads; if none fits, data was lost, torn, reordered or invented, and the
//! story says what was seen. A prefix that was found once must still fit after every later crash: what was read as
//! absent may not appear, what was read as present may not go.

pub mod ledger;
pub mod plan;

pub use ledger::{Ledger, Reader, Settled};
pub use plan::Plan;
