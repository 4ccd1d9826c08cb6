//! What was read from one attempt's log so far: points to store, and the last value of each metric.
//!
//! Invariant: whatever a program prints, memory stays bounded: points not yet stored are thinned evenly once there are
//! too many of one metric, the first, last, least and greatest kept. The last value of each metric is always exact.

use std::time::Instant;

use crate::domain::status::ObjectiveStatus;
use crate::domain::time::Timestamp;
use crate::executor::{LogRecord, Stream};
use crate::metrics::{Match, Scraper};
use crate::scheduler::curves::{Curve, epoch};
use crate::scheduler::spec::{Prepared, ReadDefinition};
use crate::store::rows::{FinalMetric, MetricPoint, ReadPosition};

/// Metrics without a value that a remark spells out.
const UNMATCHED_TOLD: usize = 5;

/// Points of one metric that wait to be stored at most; beyond, every second one is dropped.
const WAITING: usize = 1_000;

/// The reading of one attempt's log.
#[derive(Debug)]
pub struct Reading {
    /// Where to go on, and what was counted on the way.
    pub position: ReadPosition,
    /// Whether the beginning of the training is in the rows.
    pub began_stored: bool,
    /// When points were stored last.
    pub stored_at: Instant,
    scraper: Scraper,
    matches: Vec<Match>,
    /// Up to here points were stored before this reading began.
    stored: u64,
    /// Points to store, by definition.
    waiting: Vec<Waiting>,
    /// Matches so far, by definition.
    counts: Vec<u64>,
    /// Where the objective's curve goes on, if somebody follows it.
    followed: Option<Followed>,
    /// The last match of each definition, finite or not.
    last: Vec<Option<(f64, Timestamp)>>,
}

/// Points of one metric that wait to be stored: every `stride`-th by number, and besides them some that must be kept.
#[derive(Debug, Clone)]
struct Waiting {
    points: Vec<MetricPoint>,
    stride: u64,
}

impl Waiting {
    fn none() -> Self {
        Self { points: Vec::new(), stride: 1 }
    }
}

/// The objective's values that nobody was told of yet.
#[derive(Debug)]
struct Followed {
    definition: usize,
    /// The number of this attempt's first match.
    base: u64,
    news: Curve,
}

impl Reading {
    /// A reading from the log's beginning; points before `stored` are in the rows already.
    pub fn new(definition: &Prepared, stored: ReadPosition, began_stored: bool) -> Self {
        let metrics = definition.read.metrics.len();
        Self {
            position: ReadPosition::default(),
            began_stored,
            stored_at: Instant::now(),
            scraper: definition.scraper.fork(),
            matches: Vec::new(),
            stored: stored.offset,
            waiting: vec![Waiting::none(); metrics],
            counts: vec![0; metrics],
            followed: None,
            last: vec![None; metrics],
        }
    }

    /// Has the values of the objective kept for [`Reading::news`], the first one being number `base`.
    pub fn follow(&mut self, objective: usize, base: u64) {
        self.followed = Some(Followed { definition: objective, base, news: Curve::new() });
    }

    /// The objective's values since the last time.
    pub fn news(&mut self) -> Curve {
        self.followed.as_mut().map(|followed| std::mem::take(&mut followed.news)).unwrap_or_default()
    }

    /// Takes in one line.
    pub fn scrape(&mut self, record: &LogRecord) {
        if record.stream == Stream::Service {
            return;
        }
        self.matches.clear();
        self.scraper.scrape(&record.line, &mut self.matches);
        for found in &self.matches {
            self.last[found.definition] = Some((found.value, record.time));
            let nth = self.counts[found.definition];
            self.counts[found.definition] += 1;
            if let Some(followed) = self.followed.as_mut().filter(|followed| followed.definition == found.definition)
                && let Some(epoch) = epoch(followed.base + nth)
            {
                followed.news.push((epoch, found.value));
            }
            if !found.value.is_finite() {
                self.position.non_finite += 1;
            } else if record.offset >= self.stored {
                let waiting = &mut self.waiting[found.definition];
                waiting.points.push(MetricPoint {
                    // A match takes at least a byte of its line, so that this is unique in the log.
                    offset: record.offset + u64::from(found.nth),
                    nth,
                    definition: u32::try_from(found.definition).unwrap_or(u32::MAX),
                    time: record.time,
                    value: found.value,
                });
                if waiting.points.len() > WAITING {
                    thin(waiting);
                }
            }
        }
    }

    /// Whether points wait to be stored.
    pub fn has_points(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.points.is_empty())
    }

    /// The points that wait, in the order of the log.
    pub fn points(&self) -> Vec<MetricPoint> {
        let mut points: Vec<MetricPoint> = self.waiting.iter().flat_map(|waiting| &waiting.points).copied().collect();
        points.sort_by_key(|point| (point.offset, point.definition));
        points
    }

    /// Notes that the points before an offset are in the rows.
    pub fn points_stored(&mut self, before: u64) {
        for waiting in &mut self.waiting {
            waiting.points.retain(|point| point.offset >= before);
            if waiting.points.is_empty() {
                waiting.stride = 1;
            }
        }
        self.stored_at = Instant::now();
    }

    /// The last value of each metric that is a number.
    pub fn final_metrics(&self, definition: &ReadDefinition) -> Vec<FinalMetric> {
        let named = definition.metrics.iter().zip(&self.last);
        named
            .filter_map(|(metric, last)| {
                let (value, time) = (*last)?;
                value.is_finite().then(|| FinalMetric { name: metric.name.clone(), value, time })
            })
            .collect()
    }

    /// Whether the objective was evaluated, and to what.
    pub fn objective(&self, definition: &ReadDefinition) -> (ObjectiveStatus, Option<f64>) {
        match definition.objective_index().and_then(|at| self.last[at]) {
            Some((value, _)) if value.is_finite() => (ObjectiveStatus::Succeeded, Some(value)),
            _ => (ObjectiveStatus::Failed, None),
        }
    }

    /// What to tell of definitions that never matched, and of values that are no numbers.
    pub fn remark(&self) -> Option<String> {
        let mut unmatched: Vec<_> = self.scraper.unmatched().collect();
        // An image's predefined metrics are dozens, most of them of no concern to the job at hand.
        unmatched.sort_by_key(|metric| metric.not_numbers == 0);
        let mut parts: Vec<String> = unmatched.iter().take(UNMATCHED_TOLD).map(ToString::to_string).collect();
        if unmatched.len() > UNMATCHED_TOLD {
            parts.push(format!("{} further metrics: no value", unmatched.len() - UNMATCHED_TOLD));
        }
        if self.position.non_finite > 0 {
            parts.push(format!("{} metric values were infinite or not a number", self.position.non_finite));
        }
        (!parts.is_empty()).then(|| parts.join(". "))
    }
}

/// Keeps every `stride`-th point by number, as the store does, and the first, the last, the lowest and the highest. The
/// stride doubles as long as that leaves more than half of `WAITING`: it grows with the number of points alone.
fn thin(Waiting { points, stride }: &mut Waiting) {
    let by_value = |a: &&MetricPoint, b: &&MetricPoint| a.value.total_cmp(&b.value);
    let lowest = points.iter().min_by(by_value).map(|point| point.nth);
    let highest = points.iter().max_by(by_value).map(|point| point.nth);
    let kept = [points.first().map(|point| point.nth), points.last().map(|point| point.nth), lowest, highest];
    loop {
        points.retain(|point| point.nth % *stride == 0 || kept.contains(&Some(point.nth)));
        if points.len() <= WAITING / 2 {
            return;
        }
        *stride *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::request::MetricDefinition;

    #[test]
    fn a_flood_of_matches_is_thinned_and_its_ends_and_extremes_stay() {
        let definition = MetricDefinition { name: "loss".into(), regex: "loss=(\\S+)".into() };
        let mut reading = Reading {
            position: ReadPosition::default(),
            began_stored: false,
            stored_at: Instant::now(),
            scraper: Scraper::new(&[definition]).unwrap(),
            matches: Vec::new(),
            stored: 0,
            waiting: vec![Waiting::none()],
            counts: vec![0],
            followed: None,
            last: vec![None],
        };
        for n in 0..500_001_u64 {
            let value = match n {
                12_345 => -1.0,
                23_457 => 9e9,
                n => n as f64,
            };
            let line = format!("loss={value}").into_bytes();
            reading.scrape(&LogRecord { offset: n * 40, time: Timestamp(0), stream: Stream::Stdout, line });
        }
        let points = reading.points();
        assert!((WAITING / 4..=WAITING).contains(&points.len()), "{}", points.len());
        let furthest = points.windows(2).map(|pair| pair[1].nth - pair[0].nth).max().unwrap();
        assert!(furthest <= 500_001 / (WAITING as u64 / 8), "no gap in what is kept: {furthest}");
        let values: Vec<f64> = points.iter().map(|p| p.value).collect();
        assert!(values.contains(&-1.0) && values.contains(&9e9));
        assert_eq!((points[0].value, points.last().unwrap().value), (0.0, 500_000.0));
        assert_eq!(reading.last[0].unwrap().0.to_bits(), 500_000.0_f64.to_bits());
    }
}
