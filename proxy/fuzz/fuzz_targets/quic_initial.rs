//! Datagrams of QUIC and DTLS; the laws stand in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    edgeproxy::sniff::fuzz::quic_initial(data);
});
