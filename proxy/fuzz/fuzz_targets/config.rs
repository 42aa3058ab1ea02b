//! The text of a configuration.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::config::fuzz::config(data));
