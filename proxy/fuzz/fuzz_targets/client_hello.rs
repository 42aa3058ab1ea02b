//! Streams of TLS; the laws stand in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    edgeproxy::sniff::fuzz::client_hello(data);
});
