//! /etc/hosts and /etc/resolv.conf.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| edgeproxy::names::fuzz::system_files(data));
