//! The beginning of a stream: any chunking finds the same head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::sniff(bytes));
