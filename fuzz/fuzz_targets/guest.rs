//! Hostile guests at a port of a switch that runs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_frontend::fuzzing::guest(bytes));
