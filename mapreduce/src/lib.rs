//! MapReduce over a Holdfast database.
//!
//! Nothing works yet. A job will read a consistent view of the store (a key pattern) or files, map, shuffle, reduce, and write
//! to the store or files; its state will live in the replicated store, so that losing the coordinator is survivable.
