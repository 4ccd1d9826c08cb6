//! What the input mode Pipe streams, and in which order.
//!
//! Invariant: an epoch's order is a function of the number of items, the seed and the epoch alone, the same on every
//! machine and for every host of a training job: hosts that take their shares of it have disjoint ones. Opening pipes
//! and reading data are left to the executors, knowing which items there are to the object store.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Separates these orders from any other use of the same seed.
const DOMAIN: &[u8; 16] = b"tunesmith pipe\0\0";

/// A part of an item: with `RecordWrapperType: RecordIO` a record. A list of items is a JSON array of these on each line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The bytes of a file, by its path beneath the channel's data.
    File(String),
    /// A text as it stands.
    Text(String),
}

/// Which of a training job's hosts streams, and whether the hosts share the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// From 0.
    pub host: usize,
    /// Of how many; 1 where each has all of it.
    pub hosts: usize,
}

/// The items of an epoch, in their order: of all of them, shuffled where there is a seed, host i of n has those whose
/// number is i modulo n.
#[must_use]
pub fn epoch_order(items: usize, seed: Option<i64>, epoch: u64, share: Share) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items).collect();
    if let Some(seed) = seed {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        key[16..].copy_from_slice(DOMAIN);
        let mut rng = ChaCha8Rng::from_seed(key);
        // Fisher and Yates.
        for last in (1..items).rev() {
            order.swap(last, below(&mut rng, last + 1));
        }
    }
    order.into_iter().skip(share.host).step_by(share.hosts.max(1)).collect()
}

/// Uniform in 0..n but for a bias of n in 2^64.
fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    let product = u128::from(rng.next_u64()) * n as u128;
    usize::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ALL: Share = Share { host: 0, hosts: 1 };

    #[test]
    fn an_epoch_is_the_same_each_time_and_another_than_the_next() {
        assert_eq!(epoch_order(5, None, 3, ALL), [0, 1, 2, 3, 4]);
        let shuffled = |seed, epoch| epoch_order(100, Some(seed), epoch, ALL);
        assert_eq!(shuffled(7, 0), shuffled(7, 0));
        let all: BTreeSet<Vec<usize>> =
            [(7, 0), (7, 1), (7, 1 << 40), (8, 0), (-7, 0)].map(|(seed, epoch)| shuffled(seed, epoch)).into();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn an_order_stays_what_it_was_in_earlier_versions() {
        assert_eq!(epoch_order(8, Some(42), 0, ALL), [2, 6, 5, 3, 4, 1, 0, 7]);
        assert_eq!(epoch_order(8, Some(42), 1, ALL), [6, 2, 0, 7, 5, 4, 1, 3]);
        assert_eq!(epoch_order(3, Some(-5), 0, ALL), [1, 2, 0]);
    }

    #[test]
    fn every_item_comes_first_equally_often() {
        let mut counts = [0_u32; 5];
        for epoch in 0..10_000 {
            counts[epoch_order(5, Some(1), epoch, ALL)[0]] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(2000) < 200), "{counts:?}");
    }

    #[test]
    fn a_list_is_json_that_anybody_can_read() {
        let pieces = vec![Piece::File("a/b".into()), Piece::Text("1".into())];
        let text = serde_json::to_string(&pieces).unwrap();
        assert_eq!(text, r#"[{"file":"a/b"},{"text":"1"}]"#);
        assert_eq!(serde_json::from_str::<Vec<Piece>>(&text).unwrap(), pieces);
    }

    proptest! {
        #[test]
        fn hosts_share_each_epoch_between_them(
            items in 0_usize..200, hosts in 1_usize..9, seed in proptest::option::of(any::<i64>()), epoch in 0_u64..9
        ) {
            let shares: Vec<_> = (0..hosts).map(|host| epoch_order(items, seed, epoch, Share { host, hosts })).collect();
            let sizes: Vec<usize> = shares.iter().map(Vec::len).collect();
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..items).collect::<Vec<_>>());
        }
    }
}
