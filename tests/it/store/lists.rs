//! Lists: pages one after another are the full filtered order, whatever the sort, the filters and the ties.

use std::cmp::Ordering;
use std::fmt::Display;

use tunesmith::domain::names::{Scope, name_key};
use tunesmith::domain::status::{TrainingStatus, TuningStatus};
use tunesmith::domain::time::Timestamp;
use tunesmith::store::rows::{Cursor, ListQuery, Page, SortKey, SortValue, TrainingJob, TuningJob, TuningJobSummary};
use tunesmith::store::{StoreError, training_jobs, tuning_jobs};
use uuid::Uuid;

use super::fixtures::{scope, training_job, tuning_job};
use crate::support::database::TestDb;

store_suite! { [sqlite, postgres] {
    pages_of_tuning_jobs_are_the_whole_list,
    pages_of_training_jobs_are_the_whole_list,
    pages_of_one_tuning_job_are_the_whole_list,
    a_page_examines_a_bounded_number_of_rows,
    a_cursor_of_another_order_is_refused,
    wildcards_are_no_wildcards,
} }

/// What a list sees of a row.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    name_key: String,
    status: String,
    created: Timestamp,
    modified: Timestamp,
    objective: Option<f64>,
}

impl From<&TuningJobSummary> for Seen {
    fn from(job: &TuningJobSummary) -> Self {
        let (created, modified) = (job.created_at, job.modified_at);
        Self { name_key: name_key(&job.name), status: job.status.to_string(), created, modified, objective: None }
    }
}

impl From<&TrainingJob> for Seen {
    fn from(job: &TrainingJob) -> Self {
        let (created, modified, objective) = (job.created_at, job.modified_at, job.objective_value);
        Self { name_key: name_key(&job.name), status: job.status.to_string(), created, modified, objective }
    }
}

/// The list as it should be, by the words of the API.
fn expected<S: Display>(rows: &[Seen], query: &ListQuery<S, SortKey>) -> Vec<Seen> {
    let part = query.name_contains.as_ref().map(|part| part.to_lowercase());
    let mut rows: Vec<Seen> = rows
        .iter()
        .filter(|row| query.status.as_ref().is_none_or(|status| row.status == status.to_string()))
        .filter(|row| part.as_ref().is_none_or(|part| row.name_key.contains(part)))
        .filter(|row| query.created_after.is_none_or(|time| row.created > time))
        .filter(|row| query.created_before.is_none_or(|time| row.created < time))
        .filter(|row| query.modified_after.is_none_or(|time| row.modified > time))
        .filter(|row| query.modified_before.is_none_or(|time| row.modified < time))
        .filter(|row| query.sort_by != SortKey::FinalObjectiveMetricValue || row.objective.is_some())
        .cloned()
        .collect();
    rows.sort_by(|a, b| {
        let by_key = match query.sort_by {
            SortKey::Name => Ordering::Equal,
            SortKey::CreationTime => a.created.cmp(&b.created),
            SortKey::Status => a.status.cmp(&b.status),
            SortKey::FinalObjectiveMetricValue => a.objective.partial_cmp(&b.objective).unwrap(),
        };
        by_key.then_with(|| a.name_key.cmp(&b.name_key))
    });
    if query.descending {
        rows.reverse();
    }
    rows
}

/// Every combination of sort, order and filters over rows that `row` made.
fn queries<S: Copy>(sorts: &[SortKey], status: S) -> Vec<ListQuery<S, SortKey>> {
    let mut queries = Vec::new();
    for bits in 0..sorts.len() * 2 * 32 {
        let (sort_by, bits) = (sorts[bits % sorts.len()], bits / sorts.len());
        let on = |bit: usize| bits >> bit & 1 == 1;
        queries.push(ListQuery {
            sort_by,
            descending: on(0),
            status: on(1).then_some(status),
            name_contains: on(2).then(|| "B-1".into()),
            created_after: on(3).then_some(Timestamp(1)),
            created_before: on(4).then_some(Timestamp(3)),
            modified_after: on(5).then_some(Timestamp(10)),
            modified_before: on(5).then_some(Timestamp(13)),
            limit: if bits % 3 == 0 { 100 } else { 4 },
            after: None,
        });
    }
    queries
}

/// The pages of a query, one after another, their cursors carried as JSON as clients carry them.
async fn pages<T, S, F>(query: &ListQuery<S, SortKey>, mut read: F) -> Vec<Seen>
where
    S: Clone,
    for<'a> Seen: From<&'a T>,
    F: AsyncFnMut(ListQuery<S, SortKey>) -> Result<Page<T>, StoreError>,
{
    let mut query = query.clone();
    let mut seen = Vec::new();
    loop {
        let page = read(query.clone()).await.unwrap();
        assert!(page.items.len() <= query.limit as usize);
        seen.extend(page.items.iter().map(Seen::from));
        let Some(next) = page.next else { return seen };
        query.after = Some(serde_json::from_str::<Cursor>(&serde_json::to_string(&next).unwrap()).unwrap());
    }
}

/// Numbers with many ties: creation 0..5, modification 10..15.
fn times(n: u32) -> (Timestamp, Timestamp) {
    (Timestamp(i64::from(n * 7 % 5)), Timestamp(10 + i64::from(n * 3 % 5)))
}

fn name(n: u32) -> String {
    format!("{}{}-{n}", ["A", "a"][n as usize % 2], ["B", "c", "c"][n as usize % 3])
}

fn training_jobs_with_ties(tuning: Option<&TuningJob>, count: u32) -> Vec<TrainingJob> {
    let prefix = if tuning.is_some() { "t" } else { "" };
    (0..count)
        .map(|n| {
            let mut job = training_job(tuning, n + 1, &format!("{prefix}{}", name(n)));
            (job.created_at, job.modified_at) = times(n);
            job.status = TrainingStatus::ALL[(n * 5 % 6) as usize];
            job.objective_value = (n % 4 != 0).then(|| f64::from(n % 3) - 0.1);
            if n % 7 == 1 {
                job.objective_value = Some(2.0);
            }
            job
        })
        .collect()
}

async fn pages_of_tuning_jobs_are_the_whole_list(db: TestDb) {
    let mut rows = Vec::new();
    for n in 0..40 {
        let (created_at, modified_at) = times(n);
        let status = TuningStatus::ALL[(n * 5 % 7) as usize];
        let job = TuningJob { status, created_at, modified_at, ..tuning_job(&name(n)) };
        db.put(&job).await;
        rows.push(Seen::from(&job.summary()));
    }
    let far = Scope { region: "eu-west-1".into(), ..scope() };
    db.put(&TuningJob { scope: far, ..tuning_job("ab-1-elsewhere") }).await;
    for query in queries(&[SortKey::Name, SortKey::CreationTime, SortKey::Status], TuningStatus::Failed) {
        let seen = pages(&query, async |query| {
            db.read(move |tx| Box::pin(async move { tuning_jobs::list(tx, &scope(), &query).await })).await
        })
        .await;
        assert_eq!(seen, expected(&rows, &query), "{query:?}");
    }
}

async fn pages_of_training_jobs_are_the_whole_list(db: TestDb) {
    let jobs = training_jobs_with_ties(None, 40);
    db.put_training(&jobs).await;
    let rows: Vec<Seen> = jobs.iter().map(Seen::from).collect();
    for query in queries(&[SortKey::Name, SortKey::CreationTime, SortKey::Status], TrainingStatus::Completed) {
        let seen = pages(&query, async |query| {
            db.read(move |tx| Box::pin(async move { training_jobs::list(tx, &scope(), &query).await })).await
        })
        .await;
        assert_eq!(seen, expected(&rows, &query), "{query:?}");
    }
}

async fn pages_of_one_tuning_job_are_the_whole_list(db: TestDb) {
    let tuning = tuning_job("tune");
    db.put(&tuning).await;
    let jobs = training_jobs_with_ties(Some(&tuning), 40);
    db.put_training(&jobs).await;
    db.put_training(&training_jobs_with_ties(None, 10)).await;
    let rows: Vec<Seen> = jobs.iter().map(Seen::from).collect();
    let sorts = [SortKey::Name, SortKey::CreationTime, SortKey::Status, SortKey::FinalObjectiveMetricValue];
    for query in queries(&sorts, TrainingStatus::Completed) {
        let seen = pages(&query, async |query| list_of(&db, tuning.id, query).await).await;
        assert_eq!(seen, expected(&rows, &query), "{query:?}");
    }
}

async fn list_of(
    db: &TestDb,
    tuning: Uuid,
    query: ListQuery<TrainingStatus, SortKey>,
) -> Result<Page<TrainingJob>, StoreError> {
    db.read(move |tx| Box::pin(async move { training_jobs::list_of_tuning_job(tx, tuning, &query).await })).await
}

async fn a_page_examines_a_bounded_number_of_rows(db: TestDb) {
    let tuning = TuningJob { max_jobs: 10_000, ..tuning_job("tune") };
    db.put(&tuning).await;
    let name = |n: u32| if n >= 2_995 { format!("tune-{n:05}-rare") } else { format!("tune-{n:05}") };
    let jobs: Vec<_> = (1..=3_000).map(|n| training_job(Some(&tuning), n, &name(n))).collect();
    db.put_training(&jobs).await;
    let rare = ListQuery { name_contains: Some("RARE".into()), limit: 5, ..ListQuery::default() };
    let first = list_of(&db, tuning.id, rare.clone()).await.unwrap();
    assert_eq!(first.items, []);
    let next = first.next.expect("the list goes on");
    assert_eq!(next.sort, SortValue::Text("tune-02000".into()));
    let second = list_of(&db, tuning.id, ListQuery { after: Some(next), ..rare }).await.unwrap();
    assert_eq!(second.items, jobs[2_994..2_999]);
    let third = ListQuery { name_contains: Some("rare".into()), limit: 5, after: second.next, ..ListQuery::default() };
    let third = list_of(&db, tuning.id, third).await.unwrap();
    assert_eq!((third.items, third.next), (jobs[2_999..].to_vec(), None));
}

async fn a_cursor_of_another_order_is_refused(db: TestDb) {
    let cursor = Cursor { sort: SortValue::Text("Failed".into()), id: "x".into() };
    let by_time = ListQuery { sort_by: SortKey::CreationTime, after: Some(cursor), limit: 1, ..ListQuery::default() };
    let refused = list_of(&db, Uuid::new_v4(), by_time).await;
    assert!(matches!(refused, Err(StoreError::WrongCursor { .. })), "{refused:?}");
    let by_objective = ListQuery {
        sort_by: SortKey::FinalObjectiveMetricValue,
        limit: 1,
        ..ListQuery::<TrainingStatus, _>::default()
    };
    let refused =
        db.read(move |tx| Box::pin(async move { training_jobs::list(tx, &scope(), &by_objective).await })).await;
    assert!(matches!(refused, Err(StoreError::WrongSort { .. })), "{refused:?}");
}

async fn wildcards_are_no_wildcards(db: TestDb) {
    db.put_training(&[training_job(None, 1, "plain"), training_job(None, 1, "a%b_c\\d")]).await;
    for (part, found) in [("%", 1), ("_", 1), ("\\", 1), ("%b_C\\", 1), ("a_b", 0), ("l", 1), ("", 2)] {
        let query =
            ListQuery { name_contains: Some(part.into()), limit: 9, ..ListQuery::<TrainingStatus, SortKey>::default() };
        let page = db.read(move |tx| Box::pin(async move { training_jobs::list(tx, &scope(), &query).await })).await;
        assert_eq!(page.unwrap().items.len(), found, "{part}");
    }
}
