//! The random numbers of a suggestion.
//!
//! Invariant: the stream is a function of (seed, definition, ordinal) alone, and the same on every machine: `ChaCha` with
//! eight rounds, keyed by those three, and only IEEE arithmetic that rounds one way on what it gives. What the numbers
//! are used for belongs to the strategies.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Separates these streams from any other use of the same seed.
const DOMAIN: &[u8; 16] = b"tunesmith trial\0";

/// The stream of one suggestion.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of the suggestion `ordinal` of a study.
    #[must_use]
    pub fn new(seed: u64, definition: u32, ordinal: u32) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..12].copy_from_slice(&definition.to_le_bytes());
        key[12..16].copy_from_slice(&ordinal.to_le_bytes());
        key[16..].copy_from_slice(DOMAIN);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..n, without bias; 0 where n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // The largest multiple of n within the generator's range; draws beyond it would favour small remainders.
        let whole = u64::MAX - u64::MAX % n;
        loop {
            let draw = self.0.next_u64();
            if draw < whole {
                return draw % n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;

    #[test]
    fn each_part_of_the_key_changes_the_stream() {
        let first = |seed, definition, ordinal| Stream::new(seed, definition, ordinal).unit();
        let base = first(1, 2, 3);
        assert_eq!(base.to_bits(), first(1, 2, 3).to_bits());
        for other in [first(2, 2, 3), first(1, 3, 3), first(1, 2, 4), first(1 << 40, 2, 3)] {
            assert_ne!(base.to_bits(), other.to_bits());
        }
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut stream = Stream::new(7, 0, 1);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[usize::try_from(stream.below(10)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|n| n.abs_diff(10_000) < 500), "{counts:?}");
        assert_eq!(stream.below(1), 0);
        assert_eq!(stream.below(0), 0);
        assert!(stream.below(u64::MAX) < u64::MAX);
    }
}
