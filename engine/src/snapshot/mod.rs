//! The one format for state that travels.
