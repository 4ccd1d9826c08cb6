//! Metric points: once each, thinned evenly, the last and the best exact.

use tunesmith::domain::names::AttemptId;
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{MetricPoint, ReadPosition};
use tunesmith::store::{attempts, metrics};
use uuid::Uuid;

use super::fixtures::attempt;
use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    points_and_position_move_together,
    reading_again_changes_nothing,
    a_series_goes_on_across_attempts,
    long_series_are_thinned_evenly,
    one_append_of_very_many_points_stores_few,
    a_tuning_job_has_the_curves_of_its_training_jobs,
    pieces_add_up_wherever_the_appending_broke_off,
    an_attempt_that_is_gone_takes_no_points,
} }

/// The match at an offset of a log that has one every ten bytes.
fn point(offset: u64, definition: u32, value: f64) -> MetricPoint {
    MetricPoint { offset, nth: offset / 10, definition, time: Timestamp(i64::try_from(offset).unwrap() + 1), value }
}

impl TestDb {
    async fn append(&self, id: AttemptId, points: &[MetricPoint], offset: u64) {
        let points = points.to_vec();
        let position = ReadPosition { offset, non_finite: offset / 100 };
        self.write(move |tx| {
            let points = points.clone();
            Box::pin(async move { metrics::append(tx, id, 0, &points, position).await })
        })
        .await
        .unwrap();
    }

    async fn curve(&self, job: Uuid, definition: u32) -> Vec<MetricPoint> {
        self.read(move |tx| Box::pin(metrics::curve(tx, job, definition))).await.unwrap()
    }

    async fn position(&self, id: AttemptId) -> ReadPosition {
        self.read(move |tx| Box::pin(metrics::position(tx, id, 0))).await.unwrap()
    }
}

async fn points_and_position_move_together(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    assert_eq!(db.position(id).await, ReadPosition::default());
    db.append(id, &[point(0, 0, 1.0), point(0, 1, -2.5), point(10, 0, 1e300)], 200).await;
    assert_eq!(db.position(id).await, ReadPosition { offset: 200, non_finite: 2 });
    assert_eq!(db.curve(job.id, 0).await, [point(0, 0, 1.0), point(10, 0, 1e300)]);
    assert_eq!(db.curve(job.id, 1).await, [point(0, 1, -2.5)]);
    assert_eq!(db.curve(job.id, 2).await, []);
}

async fn reading_again_changes_nothing(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    let points = [point(0, 0, 1.0), point(10, 0, 2.0)];
    db.append(id, &points, 20).await;
    // What was read before, with other values; then a batch that overlaps; then an old position.
    db.append(id, &[point(0, 0, 9.0), point(10, 0, 9.0), point(5, 0, 9.0)], 20).await;
    db.append(id, &[point(10, 0, 9.0), point(20, 0, 3.0), point(20, 0, 4.0)], 30).await;
    db.append(id, &[], 5).await;
    assert_eq!(db.curve(job.id, 0).await, [point(0, 0, 1.0), point(10, 0, 2.0), point(20, 0, 4.0)]);
    assert_eq!(db.position(id).await.offset, 30);
}

async fn a_series_goes_on_across_attempts(db: TestDb) {
    let (job, first) = db.put_attempt("job").await;
    let next = attempt(&job, 2);
    let second = next.id;
    db.write(move |tx| {
        let next = next.clone();
        Box::pin(async move { attempts::insert(tx, &[next]).await })
    })
    .await
    .unwrap();
    db.append(first, &[point(50, 0, 1.0)], 60).await;
    db.append(second, &[point(0, 0, 2.0), point(40, 0, 3.0)], 60).await;
    let curve = db.curve(job.id, 0).await;
    assert_eq!(curve.iter().map(|p| (p.offset, p.value)).collect::<Vec<_>>(), [(50, 1.0), (0, 2.0), (40, 3.0)]);
    // The first attempt had six matches, of which only the last was a number, the second five.
    assert_eq!(curve.iter().map(|p| p.nth).collect::<Vec<_>>(), [5, 6, 10]);
    assert_eq!(db.read(move |tx| Box::pin(metrics::base(tx, second, 0))).await.unwrap(), 6);
}

async fn long_series_are_thinned_evenly(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    // A curve with its least and greatest value off every stride.
    let value = |n: u64| match n {
        777 => -5.0,
        12_347 => 5.0,
        _ => (n as f64 / 1000.0).sin(),
    };
    let total = 25_011_u64;
    let all: Vec<MetricPoint> = (0..total).map(|n| point(n * 10, 0, value(n))).collect();
    for batch in all.chunks(1021) {
        let end = batch.last().unwrap().offset + 10;
        db.append(id, batch, end).await;
        db.append(id, batch, end).await;
    }
    let curve = db.curve(job.id, 0).await;
    assert!(curve.len() <= 10_000, "{} points", curve.len());
    assert!(curve.len() > 4_000, "{} points", curve.len());
    assert!(curve.iter().all(|kept| all.contains(kept)));
    assert_eq!(curve.last(), all.last());
    for exact in [777_usize, 12_347] {
        assert!(curve.contains(&all[exact]), "the point {exact} is kept");
    }
    let even: Vec<u64> = curve.iter().map(|kept| kept.offset / 10).filter(|n| n % 4 == 0).collect();
    assert_eq!(even, (0..total).filter(|n| n % 4 == 0).collect::<Vec<_>>());
    assert!(curve.len() <= even.len() + 3);
    // One more point: the one that was the last is let go.
    db.append(id, &[point(total * 10, 0, 0.5)], total * 10 + 10).await;
    let longer = db.curve(job.id, 0).await;
    assert_eq!(longer.last(), Some(&point(total * 10, 0, 0.5)));
    assert!(!longer.contains(all.last().unwrap()));
}

async fn one_append_of_very_many_points_stores_few(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    let total = 200_000_u64;
    let mut all: Vec<MetricPoint> =
        (0..total).map(|n| MetricPoint { nth: n, ..point(n, 0, (n as f64 / 1000.0).sin()) }).collect();
    all[177_777].value = 5.0;
    db.append(id, &all, total).await;
    let curve = db.curve(job.id, 0).await;
    assert!((4_000..=10_000).contains(&curve.len()), "{} points", curve.len());
    assert!(curve.contains(&all[177_777]));
    assert_eq!(curve.last(), all.last());
}

async fn a_tuning_job_has_the_curves_of_its_training_jobs(db: TestDb) {
    let tuning = super::fixtures::tuning_job("tuning");
    db.put(&tuning).await;
    let jobs =
        [1, 2, 3].map(|ordinal| super::fixtures::training_job(Some(&tuning), ordinal, &format!("job-{ordinal}")));
    db.put_training(&jobs).await;
    for job in &jobs {
        let first = attempt(job, 1);
        db.write(move |tx| {
            let first = first.clone();
            Box::pin(async move { attempts::insert(tx, &[first]).await })
        })
        .await
        .unwrap();
    }
    let of = |job: usize| AttemptId { training_job: jobs[job].id, number: 1 };
    db.append(of(0), &[point(0, 0, 2.0), point(0, 1, 7.0), point(30, 0, 1.0)], 40).await;
    db.append(of(1), &[point(10, 0, 3.0)], 20).await;
    let curves = db.read(move |tx| Box::pin(metrics::curves(tx, tuning.id, 0))).await.unwrap();
    assert_eq!(curves, [(jobs[0].id, vec![(0, 2.0), (3, 1.0)]), (jobs[1].id, vec![(1, 3.0)])].into());
}

async fn pieces_add_up_wherever_the_appending_broke_off(db: TestDb) {
    let (job, id) = db.put_attempt("job").await;
    // Three metrics to a line, and one line with far more values than a piece takes.
    let mut all: Vec<MetricPoint> = (0..9_000_u64).map(|n| point(n / 3 * 10, (n % 3) as u32, n as f64)).collect();
    all.extend((0..5_000_u32).map(|n| point(50_000, 3 + n % 40, f64::from(n))));
    all.extend((0..10_u64).map(|n| MetricPoint { nth: 3_000 + n, ..point(60_000 + n, 0, 1.0) }));
    let end = ReadPosition { offset: 70_000, non_finite: 5 };
    let pieces = metrics::cut(&all, end);
    assert!(pieces.len() >= 6, "{}", pieces.len());
    assert!(pieces.iter().all(|(piece, _)| piece.len() <= 2_000 || piece.iter().all(|p| p.offset == 50_000)));
    assert_eq!(pieces.iter().map(|(piece, _)| piece.len()).sum::<usize>(), all.len());
    for broken_off in 1..=pieces.len() {
        for (piece, position) in &pieces[..broken_off] {
            db.append(id, piece, position.offset).await;
        }
        let (inside, position) = (pieces[broken_off - 1].0, db.position(id).await.offset);
        assert!(inside.iter().all(|point| point.offset < position), "what is in lies before the position");
        let after = pieces.get(broken_off).and_then(|(piece, _)| piece.first());
        assert!(after.is_none_or(|point| point.offset >= position), "and nothing that is not");
    }
    for definition in 0..3 {
        let wanted: Vec<MetricPoint> = all.iter().filter(|point| point.definition == definition).copied().collect();
        assert_eq!(db.curve(job.id, definition).await, wanted, "each once, none left out");
    }
    assert_eq!(metrics::cut(&[], end), [(&[][..], end)]);
}

async fn an_attempt_that_is_gone_takes_no_points(db: TestDb) {
    let gone = AttemptId { training_job: Uuid::new_v4(), number: 1 };
    db.append(gone, &[point(0, 0, 1.0)], 10).await;
    assert_eq!(db.curve(gone.training_job, 0).await, []);
    assert_eq!(db.position(gone).await, ReadPosition::default());
}
