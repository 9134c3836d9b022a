//! Applied state.

mod object;

pub use object::{KeyRef, Object, ObjectKind};
