//! Reading a training job's log: from its executor while it is there, from the object store afterwards, at the same
//! offsets.

use tunesmith::app::{AppError, logs};
use tunesmith::domain::names::AttemptId;
use tunesmith::domain::outcome::{Exit, ExitCause};
use tunesmith::domain::status::AttemptState;
use tunesmith::executor::{LogRecord, Stream, log_format};
use tunesmith::store::rows::{Attempt, LogSegment};
use tunesmith::store::{attempts, logs as index};

use super::fixtures::{insert, minimal, stored, training};
use crate::support::app::{START, TestApp};
use crate::support::database::Engine;

on_both_databases!(a_log_is_followed_across_its_move, a_missing_job_has_no_log);

fn text(page: &logs::LogPage) -> Vec<&str> {
    page.lines.iter().map(|record| std::str::from_utf8(&record.line).unwrap()).collect()
}

async fn a_log_is_followed_across_its_move(engine: Engine) {
    let app = TestApp::new(engine).await;
    app.ok("CreateHyperParameterTuningJob", &minimal("tune")).await;
    let job = training(&stored(&app, "tune").await, 1);
    insert(&app, std::slice::from_ref(&job)).await;
    let id = AttemptId { training_job: job.id, number: 1 };
    let row = Attempt {
        id,
        executor_id: "idle".into(),
        state: AttemptState::Inserted,
        stop_requested: false,
        exit: None,
        inserted_at: START,
    };
    app.write(move |tx| {
        let row = row.clone();
        Box::pin(async move { Ok(attempts::insert(tx, &[row]).await?) })
    })
    .await;
    let read = async |from| logs::read(&app.app, &TestApp::scope(), &job.name, None, from).await.unwrap();

    let header = async || {
        let url = format!("{}/v1/training-jobs/{}/log", app.url, job.name);
        let get = move || ureq::get(&url).call().expect("an answer");
        let response = tokio::task::spawn_blocking(get).await.expect("the client thread");
        response.headers().get("x-tunesmith-attempt").map(|value| value.to_str().unwrap().to_owned())
    };

    let nothing = read(0).await;
    assert_eq!((nothing.lines.len(), nothing.next_offset, nothing.end), (0, 0, false));
    app.executor.print(id, "first");
    let page = read(0).await;
    assert_eq!((text(&page), page.attempt, page.end), (vec!["first"], Some(1), false));
    assert_eq!(header().await.as_deref(), Some("1"));
    let none = logs::read(&app.app, &TestApp::scope(), &job.name, Some(2), 0).await.unwrap();
    assert_eq!((none.attempt, none.end), (None, false));

    // The attempt ends, and its log moves to the object store.
    let kept: Vec<LogRecord> = ["first", "second"]
        .iter()
        .map(|line| LogRecord { offset: 0, time: START, stream: Stream::Stdout, line: (*line).into() })
        .collect();
    let mut bytes = Vec::new();
    log_format::write(&kept[0], &mut bytes);
    let after_first = bytes.len() as u64;
    log_format::write(&kept[1], &mut bytes);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("segment");
    std::fs::write(&file, &bytes).unwrap();
    let object_key = app.app.objects.keep_log(id, 0, &file).await.unwrap();
    let segment = LogSegment { first_offset: 0, first_time: START, bytes: bytes.len() as u64, object_key };
    let exit = Exit {
        started_at: Some(START),
        ended_at: START,
        cause: ExitCause::Exited { code: 0 },
        failure: None,
        stderr_tail: String::new(),
        remark: None,
    };
    app.write(move |tx| {
        let (segment, exit) = (segment.clone(), exit.clone());
        Box::pin(async move {
            index::add(tx, 0, &[(id, &segment)]).await?;
            attempts::end(tx, &[(id, &exit)]).await?;
            Ok(attempts::mark_removed(tx, &[id]).await?)
        })
    })
    .await;
    let page = read(after_first).await;
    assert_eq!((text(&page), page.next_offset), (vec!["second"], bytes.len() as u64));
    let last = read(page.next_offset).await;
    assert_eq!((last.lines.len(), last.end), (0, true));
    assert_eq!(text(&read(0).await), ["first", "second"]);
}

async fn a_missing_job_has_no_log(engine: Engine) {
    let app = TestApp::new(engine).await;
    let read = logs::read(&app.app, &TestApp::scope(), "nope", None, 0).await;
    assert!(matches!(read, Err(AppError::Validation(text)) if text == "Requested resource not found."));
}
