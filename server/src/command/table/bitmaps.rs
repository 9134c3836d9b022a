//! Strings as arrays of bits.

use super::super::CommandSpec;

pub(super) static COMMANDS: &[CommandSpec] = &[];
