//! Lists of few and of many rows: the time of a page at N rows over that at 1 k, first page and a page from the middle.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tunesmith::api::aws::tokens::Tokens;
use tunesmith::app::Cursor;
use tunesmith::domain::names::Scope;
use tunesmith::store::rows::SortValue;

use crate::client::{Client, request};
use crate::{Place, median, real, setting};

const FEW: usize = 1_000;
/// When the first row was created; the others follow second by second.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// A list call, and the sort value of a job in its middle.
struct List {
    title: &'static str,
    operation: &'static str,
    input: Value,
    sort: Sort,
}

#[derive(Clone, Copy)]
enum Sort {
    Name,
    Creation,
    Status,
    Objective,
}

fn all() -> Vec<List> {
    use Sort::{Creation, Name, Objective, Status};
    const TUNING: &str = "ListHyperParameterTuningJobs";
    const TRAINING: &str = "ListTrainingJobs";
    const OF_TUNING: &str = "ListTrainingJobsForHyperParameterTuningJob";
    let of_tuning = |mut more: Value| {
        more["HyperParameterTuningJobName"] = json!("job-00000001");
        more
    };
    let list = |title, operation, input, sort| List { title, operation, input, sort };
    vec![
        list("tuning jobs by Name", TUNING, json!({}), Name),
        list(
            "tuning jobs by CreationTime, descending",
            TUNING,
            json!({"SortBy": "CreationTime", "SortOrder": "Descending"}),
            Creation,
        ),
        list("tuning jobs by Status", TUNING, json!({"SortBy": "Status"}), Status),
        list("tuning jobs, StatusEquals", TUNING, json!({"StatusEquals": "Completed"}), Name),
        list(
            "tuning jobs, StatusEquals by CreationTime",
            TUNING,
            json!({"StatusEquals": "Completed", "SortBy": "CreationTime"}),
            Creation,
        ),
        list("tuning jobs, NameContains (many)", TUNING, json!({"NameContains": "job-0"}), Name),
        list("tuning jobs, NameContains (none)", TUNING, json!({"NameContains": "absent"}), Name),
        list("training jobs by CreationTime", TRAINING, json!({"SortBy": "CreationTime"}), Creation),
        list(
            "training jobs, StatusEquals by Name",
            TRAINING,
            json!({"StatusEquals": "Failed", "SortBy": "Name"}),
            Name,
        ),
        list("a tuning job's by Name", OF_TUNING, of_tuning(json!({"SortBy": "Name"})), Name),
        list(
            "a tuning job's by objective value",
            OF_TUNING,
            of_tuning(json!({"SortBy": "FinalObjectiveMetricValue"})),
            Objective,
        ),
    ]
}

pub async fn run(place: &Place) {
    let many = setting("BENCH_ROWS", 100_000);
    let mut servers = Vec::new();
    for rows in [FEW, many] {
        let url = place.database().await;
        let address = real::serve(&url, place.folder.path()).await;
        let begun = Instant::now();
        fill(&url, rows).await;
        println!("{rows} tuning jobs and {rows} training jobs in {:.1} s", begun.elapsed().as_secs_f64());
        servers.push((address, rows));
    }
    println!("pages of 10, one at a time; median of 300, in alternation");
    let many = format!("{many} rows");
    println!(
        "{:44} {:>11} {:>13} {:>7} {:>14} {:>13} {:>7}",
        "", "first: 1 k", many, "ratio", "middle: 1 k", many, "ratio"
    );
    for list in all() {
        let [first_few, first_many] = times(&servers, &list, false).await;
        let [deep_few, deep_many] = times(&servers, &list, true).await;
        println!(
            "{:44} {first_few:8.3} ms {first_many:10.3} ms {:7.2} {deep_few:11.3} ms {deep_many:10.3} ms {:7.2}",
            list.title,
            first_many / first_few,
            deep_many / deep_few,
        );
    }
}

/// Median milliseconds of a page, for each server.
async fn times(servers: &[(SocketAddr, usize)], list: &List, deep: bool) -> [f64; 2] {
    let mut clients = Vec::new();
    let mut requests = Vec::new();
    for (address, rows) in servers {
        clients.push(Client::connect(*address).await);
        requests.push(request(list.operation, real::REGION, &list.page(deep.then_some(rows / 2)).to_string()));
    }
    let mut taken = [Vec::new(), Vec::new()];
    for turn in 0..320 {
        for at in 0..2 {
            let begun = Instant::now();
            clients[at].call(&requests[at]).await;
            // The first ones fill caches.
            if turn >= 20 {
                taken[at].push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    taken.map(median)
}

impl List {
    /// The input for the first page, or for the one after a row.
    fn page(&self, after: Option<usize>) -> Value {
        let mut input = self.input.clone();
        let Some(row) = after else { return input };
        let at = EPOCH_MS + i64::try_from(row).unwrap() * 1000;
        let sort = match self.sort {
            Sort::Name => SortValue::Text(name(row)),
            Sort::Creation => SortValue::Int(at),
            Sort::Status => SortValue::Text("Completed".into()),
            Sort::Objective => SortValue::Real(0.5),
        };
        // `serde_json` keeps the order of members; a token is sealed for them in the order of their names.
        let sorted: std::collections::BTreeMap<_, _> = input.as_object().unwrap().iter().collect();
        let scope = Scope { account: real::ACCOUNT.into(), region: real::REGION.into() };
        let cursor = Cursor { sort, id: name(row) };
        let filters = json!(sorted).to_string();
        input["NextToken"] = json!(Tokens::new(real::TOKEN_KEY).seal(self.operation, &scope, &filters, &cursor));
        input
    }
}

fn name(row: usize) -> String {
    format!("job-{row:08}")
}

/// Fills both tables; all training jobs belong to the first tuning job.
async fn fill(url: &str, rows: usize) {
    let document = real::document("job-00000001");
    let request = document.to_string().replace('\'', "''");
    let config = document["HyperParameterTuningJobConfig"].to_string().replace('\'', "''");
    let definition = document["TrainingJobDefinition"].to_string().replace('\'', "''");
    let (account, region) = (real::ACCOUNT, real::REGION);
    let id = |kind: u32| format!("'00000000-0000-4000-800{kind}-' || substr(CAST(1000000000000 + i AS TEXT), 2)");
    let (tuning_id, training_id) = (id(1), id(2));
    let name = "'job-' || substr(CAST(100000000 + i AS TEXT), 2)";
    let numbers = format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})");
    let status = "CASE i % 4 WHEN 0 THEN 'Failed' WHEN 1 THEN 'Stopped' ELSE 'Completed' END";
    let statements = [
        format!(
            "INSERT INTO definitions (id, tuning_job_name, document, objective) VALUES \
             ('00000000-0000-4000-8000-000000000000', 'job-00000001', '{definition}', \
             '{{\"Type\":\"Maximize\",\"MetricName\":\"validation-auc\"}}')"
        ),
        format!("INSERT INTO definitions (id, document) {numbers} SELECT {tuning_id}, '{{}}' FROM n"),
        format!(
            "INSERT INTO tuning_jobs (id, account, region, name_key, name, status, strategy, seed, max_jobs, \
              max_parallel, created_at, modified_at, ended_at, completed, in_progress, retryable_error, \
             non_retryable_error, stopped, objective_succeeded, objective_pending, objective_failed, observed, \
             inserted, not_improving, exhausted, lease_epoch, request, config) {numbers} \
             SELECT {tuning_id}, '{account}', '{region}', {name}, {name}, {status}, 'Random', \
             i, 100, 10, {EPOCH_MS} + i * 1000, {EPOCH_MS} + i * 1000, \
             {EPOCH_MS} + i * 1000, 100, 0, 0, 0, 0, 100, 0, 0, 100, 100, 0, 0, 1, '{request}', '{config}' FROM n"
        ),
        format!(
            "INSERT INTO training_jobs (id, account, region, name_key, name, tuning_job_id, definition_id, ordinal, \
             watermark, pending, tuned, status, secondary, transitions, created_at, modified_at, started_at, ended_at, \
             objective_status, objective_value, final_metrics, attempts, observation, stopped_early) {numbers} \
             SELECT {training_id}, '{account}', '{region}', {name}, {name}, \
             '00000000-0000-4000-8001-000000000001', '00000000-0000-4000-8000-000000000000', i, i - 1, '[]', \
             '{{\"eta\":\"0.0123456789\",\"max_depth\":\"7\"}}', {status}, 'Completed', '[]', {EPOCH_MS} + i * 1000, \
             {EPOCH_MS} + i * 1000, {EPOCH_MS} + i * 1000, {EPOCH_MS} + i * 1000, 'Succeeded', \
             (CAST(i AS BIGINT) * 7919 % {rows}) * 1.0 / {rows}, '[]', 1, i, 0 FROM n"
        ),
    ];
    if let Some(path) = url.strip_prefix("sqlite://") {
        let mut connection = sqlx::SqliteConnection::connect(path).await.unwrap();
        for statement in statements {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
        }
    } else {
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        for statement in statements.into_iter().chain(["ANALYZE".to_owned()]) {
            connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
        }
    }
}
