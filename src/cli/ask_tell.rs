//! `tunesmith ask-tell`: the search as a child process, one JSON object a line, so that it can be measured beside others.
//!
//! Invariant: one answer a request, in order; the same requests get the same answers on any machine. A request that makes
//! no sense is answered by `{"error": …}` and changes nothing. What is suggested is `search`'s alone: this keeps the study
//! between requests, as the scheduler does for a tuning job.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read as _, Write};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::domain::request::ParameterRanges;
use crate::domain::space::Space;
use crate::domain::status::{Direction, EarlyStopping, Strategy, WarmStart};
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
    warm_start: Option<Parents>,
}

/// What earlier studies found. Not part of the benchmark's protocol, whose drivers never send it.
#[derive(Debug, Deserialize)]
struct Parents {
    #[serde(rename = "WarmStartType")]
    kind: WarmStart,
    parents: Vec<Parent>,
}

/// An earlier study with the ranges and the objective of this one.
#[derive(Debug, Deserialize)]
struct Parent {
    trials: Vec<Told>,
}

#[derive(Debug, Deserialize)]
struct Told {
    params: BTreeMap<String, String>,
    value: f64,
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

/// A study, and what the verdicts on it were.
#[derive(Debug)]
struct Session {
    study: Study,
    /// The trials that a verdict stopped.
    stopped: BTreeSet<u32>,
}

/// A line of the input.
enum Line {
    Whole,
    TooLong,
    End,
}

/// Serves requests until the input ends or asks to close.
pub fn serve(mut input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let mut session = None;
    let mut line = Vec::new();
    loop {
        let request = match read_line(&mut input, &mut line)? {
            Line::End => return Ok(()),
            Line::TooLong => Err(format!("the line is no request: it is longer than {LINE_MAX_BYTES} bytes")),
            Line::Whole if line.trim_ascii().is_empty() => continue,
            Line::Whole => serde_json::from_slice(&line).map_err(|error| format!("the line is no request: {error}")),
        };
        let closing = matches!(request, Ok(Request::Close));
        let answer = request.and_then(|request| answer(&mut session, request));
        let answer = answer.unwrap_or_else(|error| json!({ "error": error }));
        writeln!(output, "{answer}")?;
        output.flush()?;
        if closing {
            return Ok(());
        }
    }
}

/// Reads one line; of one that is too long, nothing is kept.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    if input.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', line)? == 0 {
        return Ok(Line::End);
    }
    if line.ends_with(b"\n") || (line.len() as u64) < LINE_MAX_BYTES {
        return Ok(Line::Whole);
    }
    input.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

fn answer(state: &mut Option<Session>, request: Request) -> Result<Json, String> {
    match (request, state) {
        (Request::Close, _) => Ok(json!({ "ok": true })),
        (Request::Create(_), Some(_)) => Err("there is a study already: one process serves one".to_owned()),
        (Request::Create(create), state @ None) => {
            *state = Some(begin(*create)?);
            Ok(json!({ "ok": true }))
        }
        (_, None) => Err("there is no study yet: send `create` first".to_owned()),
        (Request::Ask, Some(session)) => ask(&mut session.study),
        (Request::Report { trial_id, epoch, value }, Some(session)) => report(session, trial_id, epoch, value),
        (Request::Tell { trial_id, value }, Some(session)) => tell(session, trial_id, value),
    }
}

fn begin(create: Create) -> Result<Session, String> {
    let mut study = Study {
        space: Space::parse(&create.ranges).map_err(|error| error.to_string())?,
        direction: create.objective.direction,
        strategy: create.strategy,
        seed: create.seed,
        definition: 0,
        budget: create.max_trials,
        trials: Vec::new(),
        parents: Vec::new(),
        warm_start: None,
        resource: create.resource.map(|r| Resource { min: r.min_resource, max: r.max_resource }),
        early_stopping: create.early_stopping == Some(EarlyStopping::Auto),
    };
    if study.space.parameters.is_empty() {
        return Err("there is nothing to tune: `ranges` has no range".to_owned());
    }
    if study.resource.is_some_and(|resource| resource.min == 0 || resource.min > resource.max) {
        return Err("`resource` needs 1 <= MinResource <= MaxResource".to_owned());
    }
    if let Some(Parents { kind, parents }) = create.warm_start {
        study.parents = parents.iter().map(|parent| known(&study, parent)).collect::<Result<_, _>>()?;
        study.warm_start = Some(kind);
    }
    // A strategy that this space has not is refused here rather than at every ask.
    suggest(&study, 1, 0).map_err(|error| error.to_string())?;
    Ok(Session { study, stopped: BTreeSet::new() })
}

/// A study like this one, with the trials of a parent.
fn known(study: &Study, parent: &Parent) -> Result<Study, String> {
    let trial = |(ordinal, told): (u32, &Told)| {
        let values = study.space.read(&told.params);
        let values = values.ok_or_else(|| format!("trial {ordinal} of a parent is outside of `ranges`"))?;
        Ok(Trial { ordinal, values, state: TrialState::Completed, curve: Vec::new(), value: Some(told.value) })
    };
    let trials = (1..).zip(&parent.trials).map(trial).collect::<Result<_, String>>()?;
    Ok(Study { trials, ..study.clone() })
}

/// Suggests from what is over: as with a tuning job, the curve of a pending trial counts for verdicts only.
fn ask(study: &mut Study) -> Result<Json, String> {
    let ordinal = u32::try_from(study.trials.len()).ok().and_then(|n| n.checked_add(1)).ok_or("too many trials")?;
    let mut hidden = Vec::new();
    for (at, trial) in study.trials.iter_mut().enumerate().filter(|(_, trial)| trial.state == TrialState::Pending) {
        hidden.push((at, std::mem::take(&mut trial.curve)));
    }
    let suggestions = suggest(study, ordinal, 1);
    for (at, curve) in hidden {
        study.trials[at].curve = curve;
    }
    let Some(values) = suggestions.map_err(|error| error.to_string())?.points.into_iter().next() else {
        return Ok(json!({ "done": true }));
    };
    let params = study.space.format(&values);
    study.trials.push(Trial { ordinal, values, state: TrialState::Pending, curve: Vec::new(), value: None });
    Ok(json!({ "trial_id": ordinal, "params": params }))
}

fn report(session: &mut Session, ordinal: u32, epoch: u32, value: f64) -> Result<Json, String> {
    let trial = pending(&mut session.study, ordinal)?;
    if epoch == 0 || trial.curve.last().is_some_and(|(last, _)| *last >= epoch) {
        return Err(format!("epochs count 1, 2, …, each once: {epoch} can't come now in trial {ordinal}"));
    }
    trial.curve.push((epoch, value));
    let decision = match verdict(&session.study, ordinal) {
        Verdict::Continue => "continue",
        Verdict::Stop => {
            session.stopped.insert(ordinal);
            "stop"
        }
    };
    Ok(json!({ "decision": decision }))
}

fn tell(session: &mut Session, ordinal: u32, value: Option<f64>) -> Result<Json, String> {
    let full = session.study.resource.map(|resource| resource.max);
    let stopped = session.stopped.contains(&ordinal);
    let trial = pending(&mut session.study, ordinal)?;
    let reached = trial.curve.last().map_or(0, |(epoch, _)| *epoch);
    trial.state = match value {
        None => TrialState::Failed,
        Some(_) if stopped && full.is_none_or(|full| reached < full) => TrialState::Stopped,
        Some(_) => TrialState::Completed,
    };
    trial.value = value;
    Ok(json!({ "ok": true }))
}

fn pending(study: &mut Study, ordinal: u32) -> Result<&mut Trial, String> {
    let index = (ordinal as usize).checked_sub(1);
    let trial = index.and_then(|index| study.trials.get_mut(index));
    trial.filter(|t| t.state == TrialState::Pending).ok_or_else(|| format!("trial {ordinal} is not pending"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answers to lines.
    fn talk(lines: &[&str]) -> Vec<Json> {
        let mut output = Vec::new();
        serve(lines.join("\n").as_bytes(), &mut output).unwrap();
        output
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect()
    }

    fn create(strategy: &str, direction: &str, resource: &Json) -> String {
        let real = json!([{"Name": "c", "MinValue": "0", "MaxValue": "1"}]);
        let texts = json!([{"Name": "a", "Values": ["x", "y"]}, {"Name": "b", "Values": ["1", "2"]}]);
        let numbers = if strategy == "Grid" { json!([]) } else { real };
        json!({
            "op": "create", "strategy": strategy, "seed": 1, "max_trials": 100, "max_parallel": 4, "unknown": [],
            "objective": {"Type": direction, "MetricName": "m"}, "early_stopping": "Off", "resource": resource,
            "ranges": {"CategoricalParameterRanges": texts, "ContinuousParameterRanges": numbers}
        })
        .to_string()
    }

    const ASK: &str = r#"{"op":"ask"}"#;

    #[test]
    fn what_makes_no_sense_is_answered_and_changes_nothing() {
        let unknown = create("Guess", "Minimize", &Json::Null);
        let random = create("Random", "Minimize", &Json::Null);
        let long = "x".repeat(3 << 20);
        let answers = talk(&[
            "{",
            ASK,
            &unknown,
            &create("Random", "Minimize", &json!({"MinResource": 3, "MaxResource": 2})),
            &random,
            &random,
            &long,
            "",
            r#"{"op":"tell","trial_id":1,"value":1}"#,
            r#"{"op":"report","trial_id":1,"epoch":1,"value":1}"#,
            ASK,
            r#"{"op":"report","trial_id":1,"epoch":2,"value":1}"#,
            r#"{"op":"report","trial_id":1,"epoch":2,"value":1}"#,
            r#"{"op":"tell","trial_id":1,"value":null}"#,
            r#"{"op":"tell","trial_id":1,"value":2}"#,
            r#"{"op":"close"}"#,
            ASK,
        ]);
        let shape: String = answers
            .iter()
            .map(|answer| match answer {
                a if a.get("error").is_some() => 'e',
                a if a.get("trial_id").is_some() => 't',
                a if a.get("decision").is_some() => 'd',
                a if a["ok"] == true => 'k',
                _ => '?',
            })
            .collect();
        assert_eq!(shape, "eeeekeeeetdekek", "{answers:?}");
        assert!(answers[2]["error"].as_str().unwrap().contains("Guess"));
    }

    #[test]
    fn an_exhausted_grid_is_done() {
        let answers = talk(&[&create("Grid", "Minimize", &Json::Null), ASK, ASK, ASK, ASK, ASK, ASK]);
        let points: std::collections::BTreeSet<String> =
            answers[1..5].iter().map(|a| a["params"].to_string()).collect();
        assert_eq!(points.len(), 4);
        assert_eq!(answers[5..], [json!({"done": true}), json!({"done": true})]);
    }

    #[test]
    fn a_parent_is_learned_from_and_a_trial_outside_of_the_ranges_is_named() {
        let with_parent = |c: &str| {
            let mut create: Json = serde_json::from_str(&create("Bayesian", "Minimize", &Json::Null)).unwrap();
            let trial = |c: &str, value: f64| json!({"params": {"a": "x", "b": "2", "c": c}, "value": value});
            let trials = [trial(c, 0.1), trial("0.5", 0.5), trial("0.7", 0.7), trial("0.9", 0.9)];
            create["warm_start"] = json!({"WarmStartType": "TransferLearning", "parents": [{"trials": trials}]});
            create.to_string()
        };
        let answers = talk(&[&with_parent("0.1"), ASK]);
        let first: f64 = answers[1]["params"]["c"].as_str().unwrap().parse().unwrap();
        assert!(first < 0.5, "not where the parent was worst: {answers:?}");
        let refused = talk(&[&with_parent("1.5")]);
        assert_eq!(refused, [json!({"error": "trial 1 of a parent is outside of `ranges`"})]);
    }

    /// Trials that report one value each, under a rule that stops trials.
    fn decisions(direction: &str, values: &[f64]) -> Vec<String> {
        let mut lines = vec![create("Hyperband", direction, &json!({"MinResource": 1, "MaxResource": 27}))];
        for (n, value) in (1..).zip(values) {
            lines.push(ASK.to_owned());
            lines.push(format!(r#"{{"op":"report","trial_id":{n},"epoch":1,"value":{value}}}"#));
        }
        let answers = talk(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        answers[1..].iter().skip(1).step_by(2).map(|a| a["decision"].as_str().unwrap_or("?").to_owned()).collect()
    }

    #[test]
    fn reports_are_judged_in_the_direction_of_the_objective() {
        assert_eq!(decisions("Minimize", &[1.0, 2.0, 0.5]), ["continue", "stop", "continue"]);
        assert_eq!(decisions("Maximize", &[1.0, 0.5, 2.0]), ["continue", "stop", "continue"]);
    }

    #[test]
    fn the_same_requests_get_the_same_answers_whatever_pending_trials_have_reported() {
        let study = create("Hyperband", "Maximize", &json!({"MinResource": 1, "MaxResource": 9}));
        let mut lines = vec![study];
        for n in 1..=12 {
            lines.push(ASK.to_owned());
            lines.push(format!(r#"{{"op":"report","trial_id":{n},"epoch":1,"value":0.{n}}}"#));
            lines.push(format!(r#"{{"op":"tell","trial_id":{n},"value":0.{n}}}"#));
        }
        lines.push(ASK.to_owned());
        let silent = [lines.clone(), vec![ASK.to_owned()]].concat();
        lines.push(r#"{"op":"report","trial_id":13,"epoch":1,"value":0.99}"#.to_owned());
        lines.push(ASK.to_owned());
        let last = |lines: &[String]| talk(&lines.iter().map(String::as_str).collect::<Vec<_>>()).pop().unwrap();
        assert_eq!(last(&lines), last(&silent));
        assert_eq!(last(&lines)["trial_id"], 14);
    }
}
