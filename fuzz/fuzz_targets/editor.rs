//! The frame editor: any chunking gives the same, and what no toxic takes passes byte for byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::editor(bytes));
