//! Frames whose guest left their checksum or their cutting to the switch.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_testkit::fuzzing::offload(bytes));
