//! RECORD: what is read of it is written again and read the same.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| torchmill_fuzz::record(text));
