//! A fat binary section with any content ends.
#![no_main]
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|data: &[u8]| {
    torchmill::inspect::gpu_images(&data.to_vec(), &mut BTreeMap::new());
    let mut whole = vec![0x50, 0xed, 0x55, 0xba];
    whole.extend_from_slice(data);
    torchmill::inspect::gpu_images(&whole, &mut BTreeMap::new());
});
