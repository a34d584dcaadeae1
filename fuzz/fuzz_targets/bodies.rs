//! The API's request bodies: read alike when written again, or refused with 400.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| proxy::fuzzing::bodies(bytes));
