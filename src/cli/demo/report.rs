//! What the demo shows: progress while it lasts, the best models at its end.
//!
//! Invariant: a terminal sees three lines that are drawn over; anything else sees one line for each training job that
//! ended, in the order of their ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Instant;

use serde_json::Value;

use crate::cli::say::say;

/// Width of the bar.
const BAR: usize = 30;
/// Models in the table.
const SHOWN: usize = 5;

/// A tuning job as its Describe and List answers tell it.
pub(super) struct Tuning {
    pub(super) status: String,
    pub(super) failure: Option<String>,
    best: Option<String>,
    pub(super) training_jobs: Vec<TrainingJob>,
}

/// One of its training jobs.
pub(super) struct TrainingJob {
    pub(super) name: String,
    status: String,
    hyperparameters: BTreeMap<String, String>,
    objective: Option<f64>,
    seconds: Option<f64>,
    ended: Option<f64>,
}

impl Tuning {
    pub(super) fn of(described: &Value, training_jobs: Vec<TrainingJob>) -> Self {
        Self {
            status: text(&described["HyperParameterTuningJobStatus"]).unwrap_or_default(),
            failure: text(&described["FailureReason"]),
            best: text(&described["BestTrainingJob"]["TrainingJobName"]),
            training_jobs,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "Completed" | "Failed" | "Stopped")
    }

    /// The best training job, by the service's word.
    pub(super) fn best(&self) -> Option<&TrainingJob> {
        let best = self.best.as_deref()?;
        self.training_jobs.iter().find(|job| job.name == best)
    }
}

impl TrainingJob {
    pub(super) fn of(summary: &Value) -> Self {
        let (start, end) = (summary["TrainingStartTime"].as_f64(), summary["TrainingEndTime"].as_f64());
        let tuned = summary["TunedHyperParameters"].as_object();
        Self {
            name: text(&summary["TrainingJobName"]).unwrap_or_default(),
            status: text(&summary["TrainingJobStatus"]).unwrap_or_default(),
            hyperparameters: tuned
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .collect(),
            objective: summary["FinalHyperParameterTuningJobObjectiveMetric"]["Value"].as_f64(),
            seconds: start.zip(end).map(|(start, end)| end - start),
            ended: end,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "Completed" | "Failed" | "Stopped")
    }

    fn objective_text(&self) -> String {
        self.objective.map_or_else(|| self.status.clone(), |value| format!("{value:.4}"))
    }

    fn hyperparameters_text(&self) -> String {
        let parts = self.hyperparameters.iter().map(|(name, value)| format!("{name}={}", short(value)));
        parts.collect::<Vec<_>>().join(" ")
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// A number with four digits after the point at most; anything else as it is.
fn short(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if value.contains(['.', 'e', 'E']) => format!("{number:.4}"),
        _ => value.to_owned(),
    }
}

/// Progress, as it comes in.
pub(super) struct Progress {
    total: u32,
    begun: Instant,
    terminal: bool,
    drawn: bool,
    told: BTreeSet<String>,
}

impl Progress {
    pub(super) fn new(total: u32) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { total, begun: Instant::now(), terminal, drawn: false, told: BTreeSet::new() }
    }

    pub(super) fn show(&mut self, tuning: &Tuning) {
        let text = if self.terminal { self.drawing(tuning) } else { self.news(tuning) };
        // A reader that went away does not stop the training.
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Three lines, over those drawn before.
    fn drawing(&mut self, tuning: &Tuning) -> String {
        let over = tuning.training_jobs.iter().filter(|job| job.is_over()).count();
        let filled = (over * BAR / (self.total.max(1) as usize)).min(BAR);
        let running: Vec<&str> =
            tuning.training_jobs.iter().filter(|job| !job.is_over()).map(|job| job.name.as_str()).collect();
        let best = tuning.best().map_or_else(
            || "nothing yet".to_owned(),
            |job| format!("{}  {}", job.objective_text(), job.hyperparameters_text()),
        );
        let back = if std::mem::replace(&mut self.drawn, true) { "\x1b[3A" } else { "" };
        let (bar, rest) = ("█".repeat(filled), "░".repeat(BAR - filled));
        let (total, seconds) = (self.total, self.begun.elapsed().as_secs_f64());
        format!(
            "{back}\x1b[K{bar}{rest}  {over}/{total}  {seconds:.1} s\n\x1b[Kbest     {best}\n\x1b[Krunning  {}\n",
            running.join(" ")
        )
    }

    /// A line for each training job that ended since the last look.
    fn news(&mut self, tuning: &Tuning) -> String {
        let mut ended: Vec<&TrainingJob> =
            tuning.training_jobs.iter().filter(|job| job.is_over() && !self.told.contains(&job.name)).collect();
        ended.sort_by(|a, b| a.ended.unwrap_or_default().total_cmp(&b.ended.unwrap_or_default()));
        let mut lines = String::new();
        for job in ended {
            self.told.insert(job.name.clone());
            let (nth, total) = (self.told.len(), self.total);
            let (name, objective) = (&job.name, job.objective_text());
            let _ = writeln!(lines, "{nth:>3}/{total}  {name}  {objective}  {}", job.hyperparameters_text());
        }
        lines
    }
}

/// The table at the end.
pub(super) fn summary(tuning: &Tuning, objective: &str) {
    let mut best: Vec<&TrainingJob> = tuning.training_jobs.iter().filter(|job| job.objective.is_some()).collect();
    best.sort_by(|a, b| b.objective.unwrap_or(f64::MIN).total_cmp(&a.objective.unwrap_or(f64::MIN)));
    best.truncate(SHOWN);
    let names: BTreeSet<&str> = best.iter().flat_map(|job| job.hyperparameters.keys().map(String::as_str)).collect();
    let mut header = vec!["training job".to_owned(), objective.to_owned()];
    header.extend(names.iter().map(|name| (*name).to_owned()));
    header.push("seconds".to_owned());
    let row = |job: &&TrainingJob| {
        let mut cells = vec![job.name.clone(), job.objective_text()];
        cells.extend(names.iter().map(|name| job.hyperparameters.get(*name).map_or(String::new(), |v| short(v))));
        cells.push(job.seconds.map_or(String::new(), |seconds| format!("{seconds:.1}")));
        cells
    };
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(best.iter().map(row)).collect();
    say(format_args!("\nThe best models:"));
    say(format_args!("{}", aligned(&rows).trim_end()));
}

/// Rows as columns of equal width, two spaces apart.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary_of(name: &str, status: &str, objective: Option<f64>, end: f64) -> Value {
        let mut summary = json!({
            "TrainingJobName": name,
            "TrainingJobStatus": status,
            "TunedHyperParameters": { "learning_rate": "0.123456789", "activation": "relu" },
            "TrainingStartTime": 1.0,
            "TrainingEndTime": end,
        });
        if let Some(value) = objective {
            summary["FinalHyperParameterTuningJobObjectiveMetric"] = json!({ "MetricName": "m", "Value": value });
        }
        summary
    }

    #[test]
    fn each_end_is_told_once_in_order() {
        let mut progress =
            Progress { total: 3, begun: Instant::now(), terminal: false, drawn: false, told: BTreeSet::new() };
        let jobs = |summaries: &[Value]| {
            Tuning::of(&json!({}), summaries.iter().map(TrainingJob::of).collect::<Vec<TrainingJob>>())
        };
        let first = summary_of("a", "Completed", Some(0.5), 9.0);
        let second = summary_of("b", "Failed", None, 4.0);
        let running = summary_of("c", "InProgress", None, 0.0);
        let told = progress.news(&jobs(&[first.clone(), second.clone(), running]));
        assert_eq!(
            told,
            "  1/3  b  Failed  activation=relu learning_rate=0.1235\n  2/3  a  0.5000  activation=relu learning_rate=0.1235\n"
        );
        let third = summary_of("c", "Stopped", None, 10.0);
        assert_eq!(
            progress.news(&jobs(&[first, second, third])),
            "  3/3  c  Stopped  activation=relu learning_rate=0.1235\n"
        );
    }

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(aligned(&rows), "  a    bb\n  ccc  d\n");
    }
}
