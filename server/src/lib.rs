//! Holdfast: see the crate's description; the text of this page comes with the code.

pub mod resp;
