//! Bytes near valid ones, from a fixed seed: a short run of what the fuzz targets call, in the tests of each crate.

use std::{env, fs, path::Path, thread};

use fastrand::Rng;

/// Pieces that change what the bytes around them mean, in JSON, YAML, event streams and MessagePack.
const PIECES: [&[u8]; 20] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b":",
    b",",
    b"\n",
    b"\n\n",
    b"\r",
    b"null",
    b"-1",
    b"1e400",
    b"data: ",
    b"\\ud800",
    b"\xff",
    b"\xc0",
    b"\xdf\xff\xff\xff\xff",
    b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
];

/// Checks the seeds and so many inputs near them. `check` says whether an input was accepted: all seeds have to be, and of
/// the others some, and not all, or the run would not reach what it is for.
///
/// With `VORRANG_FUZZ_SEEDS` the seeds are written there instead, for the fuzzer to begin with.
pub(crate) fn check_near(name: &str, seeds: &[&[u8]], inputs: u32, check: impl Fn(&[u8]) -> bool) {
    if let Ok(folder) = env::var("VORRANG_FUZZ_SEEDS") {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(index.to_string()), seed).unwrap();
        }
        return;
    }
    for seed in seeds {
        assert!(check(seed), "not accepted: {}", seed.escape_ascii());
    }
    let (mut rng, mut accepted) = (Rng::with_seed(1), 0);
    for _ in 0..inputs {
        let mut input = Input(seeds[rng.usize(..seeds.len())].to_vec());
        for _ in 0..rng.u8(1..6) {
            mutate(&mut input.0, seeds, &mut rng);
        }
        accepted += u32::from(check(&input.0));
    }
    assert!(
        (1..inputs).contains(&accepted),
        "{accepted} of {inputs} accepted"
    );
}

/// Shows itself if it makes a test fail.
struct Input(Vec<u8>);

impl Drop for Input {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input: {}", self.0.escape_ascii());
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[&[u8]], rng: &mut Rng) {
    let at = rng.usize(..=bytes.len());
    let end = (at + rng.usize(..16)).min(bytes.len());
    match rng.u8(..6) {
        0 => drop(bytes.drain(at..end)),
        1 => {
            let piece = bytes[at..end].to_vec();
            insert(bytes, at, &piece);
        }
        2 => insert(bytes, at, PIECES[rng.usize(..PIECES.len())]),
        3 => {
            // The rest of another one.
            let other = seeds[rng.usize(..seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.usize(..=other.len())..]);
        }
        4 => bytes[at..end].fill_with(|| rng.u8(..)),
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.u8(..8);
            }
        }
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}
