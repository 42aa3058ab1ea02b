//! A header block of HTTP/2 (HPACK).
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::sniff::fuzz::header_block(data));
