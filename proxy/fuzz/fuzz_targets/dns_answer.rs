//! An answer of a name server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::names::fuzz::answer(data));
