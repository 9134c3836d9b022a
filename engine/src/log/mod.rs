//! Each group's view of the write-ahead log.
