//! A request for the metrics.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::operation::fuzz::metrics_request(data));
