#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    vorrang_scheduler::fuzz::reply(bytes);
});
