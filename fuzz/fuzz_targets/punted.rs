//! VMs' frames that workers show to control.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| godwit_testkit::fuzzing::punted(bytes));
