//! Rows of `metric_points`, and the reading position that commits with them.
//!
//! Invariant: points and position move in one transaction, so that what lies before the position is in and is never
//! counted again. A series (metric, host) of a training job goes on across its attempts, and keeps at most `KEPT`
//! points: every `stride`-th, and besides them the last, the least and the greatest. The stride doubles when the series
//! is full, so that thinning costs O(1) a point. A point's number in its series (`seq`, from 0) counts every match of the
//! attempt, also those that were thinned or are no numbers; an attempt's numbers go on from the last point of the one
//! before.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::names::AttemptId;
use crate::store::query::{Value, assembled, from_u64, pieces, placeholders, sql};
use crate::store::rows::{MetricPoint, ReadPosition};
use crate::store::{StoreError, Tx};

/// The most points of one series.
const KEPT: i64 = 10_000;

/// Points kept whatever the stride: the last, the least, the greatest.
const PINNED: i64 = 3;

/// About the most points that one transaction should take: others wait for its end.
const PIECE: usize = 2_000;

/// Cuts points, in order of offset, into what single [`append`]s should take, each with the position that commits with
/// it. At least one piece; the last one's position is the one given. Points of one offset stay together.
#[must_use]
pub fn cut(points: &[MetricPoint], position: ReadPosition) -> Vec<(&[MetricPoint], ReadPosition)> {
    let (mut pieces, mut rest) = (Vec::new(), points);
    while let Some(next) = rest.get(PIECE).map(|point| point.offset) {
        // All points of the offset at the cut belong to one piece: the later one, or this one where it is nothing else.
        let before = rest.partition_point(|point| point.offset < next);
        let end = if before > 0 { before } else { rest.partition_point(|point| point.offset == next) };
        let Some(following) = rest.get(end) else { break };
        pieces.push((&rest[..end], ReadPosition { offset: following.offset, non_finite: 0 }));
        rest = &rest[end..];
    }
    pieces.push((rest, position));
    pieces
}

/// Where to go on reading a host's log.
pub async fn position(tx: &mut Tx<'_>, attempt: AttemptId, host: u32) -> Result<ReadPosition, StoreError> {
    Ok(read_position(tx, attempt, host, "").await?.unwrap_or_default())
}

/// Appends points and moves the reading position, in one step. Points before the position in force are left as they
/// are; of several at one offset the last counts. Keeps at most 10,000 points per metric and training job, thinned
/// evenly, the last and the best exact. Does nothing for an attempt that is gone.
///
/// There may be any number of points: they are thinned before they are stored, so that one call inserts no more than
/// 10,000 rows per metric, 64 to a statement. Points in order of offset cost least. Where they may be very many, [`cut`]
/// them and append each piece in a transaction of its own.
pub async fn append(
    tx: &mut Tx<'_>,
    attempt: AttemptId,
    host: u32,
    points: &[MetricPoint],
    position: ReadPosition,
) -> Result<(), StoreError> {
    let lock = tx.row_lock();
    let before = match read_position(tx, attempt, host, lock).await? {
        Some(before) => before,
        None if add_host(tx, attempt, host).await? => ReadPosition::default(),
        None => return Ok(()),
    };
    let mut fresh: BTreeMap<u32, Vec<MetricPoint>> = BTreeMap::new();
    for point in points.iter().filter(|point| point.offset >= before.offset && point.value.is_finite()) {
        fresh.entry(point.definition).or_default().push(*point);
    }
    if !fresh.is_empty() {
        let mut known = series_of(tx, attempt.training_job, host).await?;
        for (definition, mut points) in fresh {
            in_order(&mut points);
            extend(tx, attempt, host, definition, known.remove(&definition), &points).await?;
        }
    }
    sql(
        "moving a reading position",
        "UPDATE hosts SET read_offset = $4, non_finite = $5 WHERE training_job_id = $1 AND attempt = $2 AND host = $3",
    )
    .bind(attempt.training_job)
    .bind(attempt.number)
    .bind(host)
    .bind(from_u64(position.offset.max(before.offset)))
    .bind(from_u64(position.non_finite.max(before.non_finite)))
    .execute(tx)
    .await
    .map(|_| ())
}

/// All points of one metric of a training job on its first host, in order; `nth` counts through all attempts.
pub async fn curve(tx: &mut Tx<'_>, training_job: Uuid, definition: u32) -> Result<Vec<MetricPoint>, StoreError> {
    let rows = sql(
        "reading a metric's curve",
        "SELECT byte_offset, seq, definition, read_at, value FROM metric_points \
         WHERE training_job_id = $1 AND definition = $2 AND host = 0 ORDER BY attempt, byte_offset",
    )
    .bind(training_job)
    .bind(definition)
    .all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let mut r = row.reader("metric_points", "byte_offset, seq, definition, read_at, value");
            let (offset, nth) = (r.u64()?, r.u64()?);
            Ok(MetricPoint { offset, nth, definition: r.u32()?, time: r.time()?, value: r.real()? })
        })
        .collect()
}

/// The same of every training job of a tuning job: (number in the series, value), in order.
pub async fn curves(
    tx: &mut Tx<'_>,
    tuning_job: Uuid,
    definition: u32,
) -> Result<BTreeMap<Uuid, Vec<(u64, f64)>>, StoreError> {
    let rows = sql(
        "reading the curves of a tuning job",
        "SELECT p.training_job_id, p.seq, p.value FROM training_jobs t JOIN metric_points p ON p.training_job_id = t.id \
         WHERE t.tuning_job_id = $1 AND p.definition = $2 AND p.host = 0 ORDER BY p.training_job_id, p.seq",
    )
    .bind(tuning_job)
    .bind(definition)
    .all(tx)
    .await?;
    let mut curves: BTreeMap<Uuid, Vec<(u64, f64)>> = BTreeMap::new();
    for row in &rows {
        let mut r = row.reader("metric_points", "training_job_id, seq, value");
        curves.entry(r.parsed()?).or_default().push((r.u64()?, r.real()?));
    }
    Ok(curves)
}

/// The number that an attempt's first match of a metric has in its series.
pub async fn base(tx: &mut Tx<'_>, attempt: AttemptId, definition: u32) -> Result<u64, StoreError> {
    let mut known = series_of(tx, attempt.training_job, 0).await?;
    let series = known.remove(&definition);
    Ok(series.map_or(0, |series| series.base_of(attempt.number)).try_into().unwrap_or(0))
}

async fn read_position(
    tx: &mut Tx<'_>,
    attempt: AttemptId,
    host: u32,
    lock: &str,
) -> Result<Option<ReadPosition>, StoreError> {
    let text = format!(
        "SELECT read_offset, non_finite FROM hosts WHERE training_job_id = $1 AND attempt = $2 AND host = $3{lock}"
    );
    let args = vec![attempt.training_job.into(), attempt.number.into(), host.into()];
    let row = assembled("reading a reading position", text, args).optional(tx).await?;
    let Some(row) = row else { return Ok(None) };
    let mut r = row.reader("hosts", "read_offset, non_finite");
    Ok(Some(ReadPosition { offset: r.u64()?, non_finite: r.u64()? }))
}

/// Adds the row of a host that is not the first; false where the attempt is gone.
async fn add_host(tx: &mut Tx<'_>, attempt: AttemptId, host: u32) -> Result<bool, StoreError> {
    let added = sql(
        "adding a host",
        "INSERT INTO hosts (training_job_id, attempt, host, read_offset, non_finite) \
         SELECT training_job_id, number, CAST($3 AS BIGINT), 0, 0 FROM attempts \
         WHERE training_job_id = $1 AND number = $2",
    )
    .bind(attempt.training_job)
    .bind(attempt.number)
    .bind(host)
    .execute(tx)
    .await?;
    Ok(added > 0)
}

/// A row of `metric_series`.
#[derive(Debug, Clone, Copy)]
struct Series {
    seen: i64,
    stride: i64,
    attempt: u32,
    base: i64,
    last: i64,
    least: (i64, f64),
    greatest: (i64, f64),
}

impl Series {
    fn begun_by(attempt: u32, point: &MetricPoint) -> Self {
        let extreme = (point.nth.cast_signed(), point.value);
        Self { seen: 0, stride: 1, attempt, base: 0, last: 0, least: extreme, greatest: extreme }
    }

    /// The number of an attempt's first match: after all of the attempts before.
    fn base_of(&self, attempt: u32) -> i64 {
        if attempt == self.attempt { self.base } else { self.seen }
    }

    /// Counts a point, and says its number.
    fn count(&mut self, point: &MetricPoint) -> i64 {
        let seq = (self.base + point.nth.cast_signed()).max(self.seen);
        self.seen = seq + 1;
        self.last = seq;
        if point.value < self.least.1 {
            self.least = (seq, point.value);
        }
        if point.value > self.greatest.1 {
            self.greatest = (seq, point.value);
        }
        while (self.seen + self.stride - 1) / self.stride > KEPT - PINNED {
            self.stride *= 2;
        }
        seq
    }

    fn pinned(&self) -> [i64; 3] {
        [self.last, self.least.0, self.greatest.0]
    }

    fn keeps(&self, seq: i64) -> bool {
        seq % self.stride == 0 || self.pinned().contains(&seq)
    }
}

async fn series_of(tx: &mut Tx<'_>, training_job: Uuid, host: u32) -> Result<BTreeMap<u32, Series>, StoreError> {
    const COLUMNS: &str =
        "definition, seen, stride, attempt, base, last_seq, least_seq, least_value, most_seq, most_value";
    let rows = sql(
        "reading the series of a training job",
        "SELECT definition, seen, stride, attempt, base, last_seq, least_seq, least_value, most_seq, most_value \
         FROM metric_series WHERE training_job_id = $1 AND host = $2",
    )
    .bind(training_job)
    .bind(host)
    .all(tx)
    .await?;
    rows.iter()
        .map(|row| {
            let mut r = row.reader("metric_series", COLUMNS);
            let definition = r.u32()?;
            let series = Series {
                seen: r.int()?,
                stride: r.int()?,
                attempt: r.u32()?,
                base: r.int()?,
                last: r.int()?,
                least: (r.int()?, r.real()?),
                greatest: (r.int()?, r.real()?),
            };
            Ok((definition, series))
        })
        .collect()
}

/// Sorts by offset; of several at one offset the last stays.
fn in_order(points: &mut Vec<MetricPoint>) {
    points.sort_by_key(|point| point.offset);
    points.dedup_by(|later, earlier| {
        let same = later.offset == earlier.offset;
        if same {
            *earlier = *later;
        }
        same
    });
}

/// Adds new points, in order, to a series.
async fn extend(
    tx: &mut Tx<'_>,
    attempt: AttemptId,
    host: u32,
    definition: u32,
    known: Option<Series>,
    points: &[MetricPoint],
) -> Result<(), StoreError> {
    let Some(first) = points.first() else { return Ok(()) };
    let mut series = known.unwrap_or_else(|| Series::begun_by(attempt.number, first));
    (series.base, series.attempt) = (series.base_of(attempt.number), attempt.number);
    let numbered: Vec<(i64, &MetricPoint)> = points.iter().map(|point| (series.count(point), point)).collect();
    if let Some(before) = known {
        thin(tx, (attempt.training_job, definition, host), before, series).await?;
    }
    let kept: Vec<(i64, &MetricPoint)> = numbered.into_iter().filter(|(seq, _)| series.keeps(*seq)).collect();
    for piece in pieces(&kept) {
        let text = format!(
            "INSERT INTO metric_points (training_job_id, definition, host, attempt, byte_offset, seq, read_at, value) \
             VALUES {} ON CONFLICT (training_job_id, definition, host, attempt, byte_offset) DO NOTHING",
            placeholders(piece.len(), 8)
        );
        let args = piece.iter().flat_map(|(seq, point)| {
            [
                Value::from(attempt.training_job),
                Value::from(definition),
                Value::from(host),
                Value::from(attempt.number),
                from_u64(point.offset),
                Value::from(*seq),
                Value::from(point.time),
                Value::from(point.value),
            ]
        });
        assembled("storing metric points", text, args.collect()).execute(tx).await?;
    }
    keep_series(tx, (attempt.training_job, definition, host), series).await
}

/// Deletes what the series kept before and keeps no longer.
async fn thin(
    tx: &mut Tx<'_>,
    (training_job, definition, host): (Uuid, u32, u32),
    before: Series,
    now: Series,
) -> Result<(), StoreError> {
    let pinned = now.pinned();
    if now.stride != before.stride {
        return sql(
            "thinning a series",
            "DELETE FROM metric_points WHERE training_job_id = $1 AND definition = $2 AND host = $3 \
             AND seq % $4 <> 0 AND seq NOT IN ($5, $6, $7)",
        )
        .bind(training_job)
        .bind(definition)
        .bind(host)
        .bind(now.stride)
        .bind(pinned[0])
        .bind(pinned[1])
        .bind(pinned[2])
        .execute(tx)
        .await
        .map(|_| ());
    }
    let unpinned = before.pinned().map(|seq| if now.keeps(seq) { -1 } else { seq });
    if unpinned == [-1; 3] {
        return Ok(());
    }
    sql(
        "thinning a series",
        "DELETE FROM metric_points WHERE training_job_id = $1 AND definition = $2 AND host = $3 \
         AND seq IN ($4, $5, $6)",
    )
    .bind(training_job)
    .bind(definition)
    .bind(host)
    .bind(unpinned[0])
    .bind(unpinned[1])
    .bind(unpinned[2])
    .execute(tx)
    .await
    .map(|_| ())
}

async fn keep_series(
    tx: &mut Tx<'_>,
    (training_job, definition, host): (Uuid, u32, u32),
    series: Series,
) -> Result<(), StoreError> {
    sql(
        "keeping a series",
        "INSERT INTO metric_series (training_job_id, definition, host, seen, stride, attempt, base, last_seq, \
         least_seq, least_value, most_seq, most_value) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
         ON CONFLICT (training_job_id, definition, host) DO UPDATE SET seen = excluded.seen, \
         stride = excluded.stride, attempt = excluded.attempt, base = excluded.base, last_seq = excluded.last_seq, least_seq = excluded.least_seq, \
         least_value = excluded.least_value, most_seq = excluded.most_seq, most_value = excluded.most_value",
    )
    .bind(training_job)
    .bind(definition)
    .bind(host)
    .bind(series.seen)
    .bind(series.stride)
    .bind(series.attempt)
    .bind(series.base)
    .bind(series.last)
    .bind(series.least.0)
    .bind(series.least.1)
    .bind(series.greatest.0)
    .bind(series.greatest.1)
    .execute(tx)
    .await
    .map(|_| ())
}
