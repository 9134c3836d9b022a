//! Applied state.
