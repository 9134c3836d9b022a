//! One ledger for the memory of all parts.
