//! `tunesmith ask-tell`: the search as a child process, one JSON object a line, so that it can be measured beside others.
//!
//! Invariant: one answer a request, in order; the same requests get the same answers on any machine. A request that makes
//! no sense is answered by `{"error": …}` and changes nothing. What is suggested is `search`'s alone: this keeps the study
//! between requests, as the scheduler does for a tuning job.

use std::io::{BufRead, Write};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::domain::request::ParameterRanges;
use crate::domain::space::Space;
use crate::domain::status::{Direction, EarlyStopping, Strategy};
use crate::search::{Resource, Study, Trial, TrialState, Verdict, suggest, verdict};

/// The longest line that is read; a longer one is no request of this protocol.
const LINE_MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Request {
    Create(Box<Create>),
    Ask,
    Report { trial_id: u32, epoch: u32, value: f64 },
    Tell { trial_id: u32, value: Option<f64> },
    Close,
}

#[derive(Debug, Deserialize)]
struct Create {
    strategy: Strategy,
    #[serde(default)]
    seed: u64,
    max_trials: u32,
    objective: Objective,
    ranges: ParameterRanges,
    early_stopping: Option<EarlyStopping>,
    resource: Option<Limits>,
}

#[derive(Debug, Deserialize)]
struct Objective {
    #[serde(rename = "Type")]
    direction: Direction,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Limits {
    min_resource: u32,
    max_resource: u32,
}

/// Serves requests until the input ends or asks to close.
pub fn serve(mut input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let mut study = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if std::io::Read::take(&mut input, LINE_MAX_BYTES).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let request = serde_json::from_slice(&line).map_err(|error| format!("the line is no request: {error}"));
        let closing = matches!(request, Ok(Request::Close));
        let answer = request.and_then(|request| answer(&mut study, request));
        let answer = answer.unwrap_or_else(|error| json!({ "error": error }));
        writeln!(output, "{answer}")?;
        output.flush()?;
        if closing {
            return Ok(());
        }
    }
}

fn answer(state: &mut Option<Study>, request: Request) -> Result<Json, String> {
    if let Request::Create(create) = request {
        *state = Some(begin(*create)?);
        return Ok(json!({ "ok": true }));
    }
    if let Request::Close = request {
        return Ok(json!({ "ok": true }));
    }
    let study = state.as_mut().ok_or("there is no study yet: send `create` first")?;
    match request {
        Request::Create(_) | Request::Close => Ok(json!({ "ok": true })),
        Request::Ask => ask(study),
        Request::Report { trial_id, epoch, value } => report(study, trial_id, epoch, value),
        Request::Tell { trial_id, value } => tell(study, trial_id, value),
    }
}

fn begin(create: Create) -> Result<Study, String> {
    Ok(Study {
        space: Space::parse(&create.ranges).map_err(|error| error.to_string())?,
        direction: create.objective.direction,
        strategy: create.strategy,
        seed: create.seed,
        definition: 0,
        budget: create.max_trials,
        trials: Vec::new(),
        parents: Vec::new(),
        resource: create.resource.map(|r| Resource { min: r.min_resource, max: r.max_resource }),
        early_stopping: create.early_stopping == Some(EarlyStopping::Auto),
    })
}

fn ask(study: &mut Study) -> Result<Json, String> {
    let ordinal = u32::try_from(study.trials.len()).ok().and_then(|n| n.checked_add(1)).ok_or("too many trials")?;
    let suggestions = suggest(study, ordinal, 1).map_err(|error| error.to_string())?;
    let Some(values) = suggestions.points.into_iter().next() else {
        return Ok(json!({ "done": true }));
    };
    let params = study.space.format(&values);
    study.trials.push(Trial { ordinal, values, state: TrialState::Pending, curve: Vec::new(), value: None });
    Ok(json!({ "trial_id": ordinal, "params": params }))
}

fn report(study: &mut Study, ordinal: u32, epoch: u32, value: f64) -> Result<Json, String> {
    let trial = pending(study, ordinal)?;
    if trial.curve.last().is_some_and(|(last, _)| *last >= epoch) {
        return Err(format!("epoch {epoch} of trial {ordinal} comes after a later one"));
    }
    trial.curve.push((epoch, value));
    let decision = match verdict(study, ordinal) {
        Verdict::Continue => "continue",
        Verdict::Stop => "stop",
    };
    Ok(json!({ "decision": decision }))
}

fn tell(study: &mut Study, ordinal: u32, value: Option<f64>) -> Result<Json, String> {
    let full = study.resource.map(|resource| resource.max);
    let trial = pending(study, ordinal)?;
    let reached = trial.curve.last().map(|(epoch, _)| *epoch);
    trial.state = match (value, full, reached) {
        (None, _, _) => TrialState::Failed,
        (Some(_), Some(full), Some(reached)) if reached < full => TrialState::Stopped,
        _ => TrialState::Completed,
    };
    trial.value = value;
    Ok(json!({ "ok": true }))
}

fn pending(study: &mut Study, ordinal: u32) -> Result<&mut Trial, String> {
    let index = (ordinal as usize).checked_sub(1);
    let trial = index.and_then(|index| study.trials.get_mut(index));
    trial.filter(|t| t.state == TrialState::Pending).ok_or_else(|| format!("trial {ordinal} is not pending"))
}
