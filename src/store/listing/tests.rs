//! Which index serves which list, as SQLite plans it.

use uuid::Uuid;

use super::*;
use crate::domain::names::Scope;
use crate::domain::status::TrainingStatus;
use crate::domain::time::Timestamp;
use crate::store::{Db, explained, training_jobs, tuning_jobs};

type Query = ListQuery<TrainingStatus, SortKey>;

/// The steps of SQLite's plan for a page.
async fn steps(db: &Db, list: &dyn Fn() -> List, query: Query) -> Vec<String> {
    let list = list();
    let plan = plan(&list, &query).unwrap();
    explained::steps(db, &plan.page(&list, 11), plan.args.clone()).await
}

fn tuning() -> List {
    tuning_jobs::of_scope(&Scope { account: "1".into(), region: "r".into() })
}

fn training() -> List {
    training_jobs::of_scope(&Scope { account: "1".into(), region: "r".into() })
}

fn of_one() -> List {
    training_jobs::of_tuning_job(Uuid::nil())
}

fn cursor(sort_by: SortKey) -> Cursor {
    let sort = match sort_by {
        SortKey::Name | SortKey::Status => SortValue::Text("x".into()),
        SortKey::CreationTime => SortValue::Int(1),
        SortKey::FinalObjectiveMetricValue => SortValue::Real(1.0),
    };
    Cursor { sort, id: "x".into() }
}

#[tokio::test]
async fn one_index_serves_filter_and_order() {
    let (_folder, db) = explained::database().await;
    let all = [SortKey::Name, SortKey::CreationTime, SortKey::Status, SortKey::FinalObjectiveMetricValue];
    let lists: [(&dyn Fn() -> List, &[SortKey]); 3] = [(&tuning, &all[..3]), (&training, &all[..3]), (&of_one, &all)];
    for (list, sorts) in lists {
        for (sort_by, bits) in sorts.iter().flat_map(|sort_by| (0..8).map(move |bits| (*sort_by, bits))) {
            let query = Query {
                sort_by,
                descending: bits & 1 == 1,
                after: (bits & 2 == 2).then(|| cursor(sort_by)),
                status: (bits & 4 == 4).then_some(TrainingStatus::Failed),
                created_after: (sort_by == SortKey::CreationTime).then_some(Timestamp(0)),
                ..Query::default()
            };
            let residual = !plan(&list(), &query).unwrap().residual.is_empty();
            let steps = steps(&db, list, query.clone()).await;
            assert!(
                steps.iter().all(|step| !step.starts_with("SCAN") || step == "SCAN examined"),
                "{query:?} {steps:?}"
            );
            if !residual {
                assert_eq!(steps.len(), 1, "{query:?} {steps:?}");
                assert!(steps[0].starts_with("SEARCH") && steps[0].contains("INDEX"), "{query:?} {steps:?}");
            }
        }
    }
}

#[tokio::test]
async fn combinations_walk_an_index_to_their_bound() {
    let (_folder, db) = explained::database().await;
    for sort_by in [SortKey::Name, SortKey::CreationTime, SortKey::Status] {
        let query = Query {
            sort_by,
            name_contains: Some("x".into()),
            modified_after: Some(Timestamp(0)),
            after: Some(cursor(sort_by)),
            ..Query::default()
        };
        let steps = steps(&db, &training, query).await;
        assert!(
            steps.iter().any(|step| step.contains("INDEX") && step.contains("account=? AND region=? AND")),
            "{steps:?}"
        );
        // The page alone is sorted at last; the walk follows the index.
        assert!(steps.iter().filter(|step| step.contains("TEMP B-TREE FOR ORDER BY")).count() <= 1, "{steps:?}");
    }
}
