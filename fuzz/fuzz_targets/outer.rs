//! Frames from the underlay.
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| godwit_testkit::fuzzing::outer(frame));
