//! A line between a process and the one that takes over from it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::operation::fuzz::handed_over(data));
