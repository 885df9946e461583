//! Frames from a tenant.
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| godwit_testkit::fuzzing::inner(frame));
