//! The durable base below the log.
