//! The table under test.
