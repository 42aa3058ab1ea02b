//! Every protocol asked of the first bytes of a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::sniff::fuzz::sniff(data));
