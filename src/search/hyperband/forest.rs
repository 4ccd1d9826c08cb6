//! A regression forest over points as `features` encodes them: what to expect of a point, and how sure that is.
//!
//! Invariant: a forest is a function of its rows and its stream. Its predictions lie within the rows' targets.
//!
//! | symbol | here    | meaning                                                                       |
//! |--------|---------|-------------------------------------------------------------------------------|
//! | M      | `TREES` | how many trees, each grown on rows drawn with replacement                     |
//! | K      | `TRIES` | random splits that are tried at a node; the one that leaves least variance wins|
//!
//! Geurts, Ernst and Wehenkel, "Extremely randomized trees" (Machine Learning 63, 2006), with Breiman's bootstrap so that
//! trees differ about what few rows say: their spread stands for the uncertainty, as in `SMAC` (Hutter, Hoos and
//! Leyton-Brown, LION 2011, section 4.1). Trees care for neither the scale of a parameter nor one that does not matter.

use crate::search::features::Kind;
use crate::search::rng::Stream;

const TREES: usize = 20;
const TRIES: usize = 10;

/// A point and its target.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) point: Vec<f64>,
    pub(super) target: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Forest {
    trees: Vec<Vec<Node>>,
}

#[derive(Debug)]
enum Node {
    Leaf(f64),
    /// Where the points go: to `low` or to `high`, places in the tree.
    Fork {
        split: Split,
        low: usize,
        high: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Split {
    /// Low is what lies below.
    Below { axis: usize, at: f64 },
    /// Low are the categories whose bit is set; the service allows 30 of them.
    OneOf { axis: usize, set: u32 },
}

impl Split {
    fn is_low(self, point: &[f64]) -> bool {
        match self {
            Self::Below { axis, at } => point[axis] < at,
            Self::OneOf { axis, set } => set & bit(point[axis]) != 0,
        }
    }

    /// A random split of some rows by a random axis; `None` where they do not differ along it.
    fn draw(kinds: &[Kind], rows: &[&Row], stream: &mut Stream) -> Option<Self> {
        let k = usize::try_from(stream.below(kinds.len() as u64)).ok()?;
        let places = rows.iter().map(|row| row.point[k]);
        match kinds[k] {
            Kind::Real | Kind::Whole(_) => {
                let (min, max) = places.fold((1.0_f64, 0.0_f64), |(min, max), x| (min.min(x), max.max(x)));
                (min < max).then(|| Self::Below { axis: k, at: min + stream.unit() * (max - min) })
            }
            Kind::Category(_) => {
                let seen = places.fold(0, |seen, x| seen | bit(x));
                #[expect(clippy::cast_possible_truncation, reason = "a draw below 2^32")]
                let set = stream.below(1 << 32) as u32;
                (seen.count_ones() > 1).then_some(Self::OneOf { axis: k, set })
            }
        }
    }
}

fn bit(category: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates and 31 bounds it")]
    let category = category as u32;
    1 << category.min(31)
}

impl Forest {
    /// A forest over at least one row.
    pub(super) fn grow(kinds: &[Kind], rows: &[Row], stream: &mut Stream) -> Self {
        let tree = |_| {
            let draw = |_| usize::try_from(stream.below(rows.len() as u64)).ok().and_then(|i| rows.get(i));
            let mut drawn: Vec<&Row> = (0..rows.len()).filter_map(draw).collect();
            let mut tree = Vec::with_capacity(2 * rows.len());
            branch(&mut tree, kinds, &mut drawn, stream);
            tree
        };
        Self { trees: (0..TREES).map(tree).collect() }
    }

    /// Mean and standard deviation of what the trees say.
    pub(super) fn predict(&self, point: &[f64]) -> (f64, f64) {
        let n = self.trees.len() as f64;
        let said: Vec<f64> = self.trees.iter().map(|tree| follow(tree, point)).collect();
        let mean = said.iter().sum::<f64>() / n;
        let variance = said.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        (mean, variance.sqrt())
    }
}

fn follow(tree: &[Node], point: &[f64]) -> f64 {
    let mut place = 0;
    loop {
        match &tree[place] {
            Node::Leaf(target) => return *target,
            Node::Fork { split, low, high } => place = if split.is_low(point) { *low } else { *high },
        }
    }
}

/// Adds the tree over some rows, and answers where its root is.
fn branch(tree: &mut Vec<Node>, kinds: &[Kind], rows: &mut [&Row], stream: &mut Stream) -> usize {
    let mean = rows.iter().map(|row| row.target).sum::<f64>() / rows.len().max(1) as f64;
    let root = tree.len();
    tree.push(Node::Leaf(mean));
    let Some(split) = best_split(kinds, rows, mean, stream) else { return root };
    let mut lows = 0;
    for i in 0..rows.len() {
        if split.is_low(&rows[i].point) {
            rows.swap(i, lows);
            lows += 1;
        }
    }
    let (below, above) = rows.split_at_mut(lows);
    let low = branch(tree, kinds, below, stream);
    let high = branch(tree, kinds, above, stream);
    tree[root] = Node::Fork { split, low, high };
    root
}

/// The one of some random splits that takes most variance away; `None` where there is none to take or to tell.
fn best_split(kinds: &[Kind], rows: &[&Row], mean: f64, stream: &mut Stream) -> Option<Split> {
    let first = rows.first()?.target.to_bits();
    if kinds.is_empty() || rows.iter().all(|row| row.target.to_bits() == first) {
        return None;
    }
    let mut best = None;
    let mut most = f64::NEG_INFINITY;
    for _ in 0..TRIES {
        let Some(split) = Split::draw(kinds, rows, stream) else { continue };
        let lows = rows.iter().filter(|row| split.is_low(&row.point));
        let (n, sum) = lows.fold((0_usize, 0.0), |(n, sum), row| (n + 1, sum + (row.target - mean)));
        if n == 0 || n == rows.len() {
            continue;
        }
        // Between-group sum of squares; deviations from the mean sum to zero, so both groups have the same square.
        let gain = sum * sum / n as f64 + sum * sum / (rows.len() - n) as f64;
        if gain > most {
            (best, most) = (Some(split), gain);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{Forest, Row};
    use crate::search::features::Kind;
    use crate::search::rng::Stream;

    fn rows(n: u32, target: impl Fn(&[f64]) -> f64) -> Vec<Row> {
        let mut stream = Stream::new(3, 0, 1);
        let mut row = |_| {
            let point = vec![stream.unit(), stream.unit(), stream.below(4) as f64];
            Row { target: target(&point), point }
        };
        (0..n).map(&mut row).collect()
    }

    #[test]
    fn it_learns_a_step_a_category_and_where_it_knows_nothing() {
        let kinds = [Kind::Real, Kind::Real, Kind::Category(4)];
        let target = |x: &[f64]| f64::from(x[0] > 0.5) + if x[2] > 1.5 && x[2] < 2.5 { 2.0 } else { 0.0 };
        let forest = Forest::grow(&kinds, &rows(300, target), &mut Stream::new(1, 0, 1));
        for x in [0.1, 0.9] {
            for category in [0.0, 2.0, 3.0] {
                let point = [x, 0.3, category];
                let (mean, spread) = forest.predict(&point);
                assert!((mean - target(&point)).abs() < 0.25, "{point:?}: {mean} ± {spread}");
            }
        }
        let spread = |x| forest.predict(&[x, 0.3, 0.0]).1;
        assert!(spread(0.5) > spread(0.1) + 0.05, "the edge of the step is less sure than its middle");
    }

    #[test]
    fn equal_rows_and_equal_targets_are_one_leaf() {
        let kinds = [Kind::Real, Kind::Real, Kind::Category(4)];
        let flat = Forest::grow(&kinds, &rows(50, |_| 0.5), &mut Stream::new(1, 0, 1));
        assert_eq!(flat.predict(&[0.2, 0.2, 0.0]), (0.5, 0.0));
        let same = vec![Row { point: vec![0.5], target: 0.25 }, Row { point: vec![0.5], target: 0.75 }];
        let (mean, _) = Forest::grow(&[Kind::Real], &same, &mut Stream::new(1, 0, 1)).predict(&[0.9]);
        assert!((0.25..=0.75).contains(&mean));
    }
}
