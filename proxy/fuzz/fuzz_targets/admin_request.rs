//! A line at the admin socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::operation::fuzz::admin_request(data));
