//! Archives of compiled objects, and the door of a shared cache: nothing leaves a folder, nothing grows past what came.
#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| torchmill_fuzz::objects(data));
