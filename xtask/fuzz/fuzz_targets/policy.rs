//! A policy that is read demands something.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| torchmill_fuzz::policy(text));
