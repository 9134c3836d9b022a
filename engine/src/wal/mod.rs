//! The shared write-ahead log.
