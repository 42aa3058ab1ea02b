//! PROXY headers of both versions, of streams and of datagrams, and Cloudflare's.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeproxy::wire::fuzz::proxy_header(bytes));
