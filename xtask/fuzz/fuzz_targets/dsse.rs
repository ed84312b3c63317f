//! Statements and envelopes: nothing that was not signed passes for signed.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::dsse(data));
