//! A lock that is read has digests only, and is written as it was read.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| torchmill_fuzz::lock(text));
