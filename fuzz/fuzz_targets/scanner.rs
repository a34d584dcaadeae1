//! The frame scanner: any chunking finds the same frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::scanner(bytes));
