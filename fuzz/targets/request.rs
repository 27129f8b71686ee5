#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vorrang_gateway::fuzz::request(bytes);
});
