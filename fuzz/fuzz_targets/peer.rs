//! Frames and bodies of datagrams from other NVEs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_testkit::fuzzing::peer(bytes));
