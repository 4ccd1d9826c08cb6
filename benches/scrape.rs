//! Metric scraping against the plain loop over the same expressions, on one log.
//!
//! The log: lines of 80 to 150 bytes, one in twenty with a metric; twenty expressions as users write them. The baseline is what
//! a loop over compiled expressions costs without the search for required texts. `scrape_python.py` is the same loop in
//! Python on the same bytes. Both report bytes a second of one core.

#![expect(clippy::expect_used, reason = "a benchmark that can't be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use regex::Regex;
use tunesmith::domain::request::MetricDefinition;
use tunesmith::metrics::Scraper;

/// Kept in step with `scrape_python.py`.
const EXPRESSIONS: [&str; 20] = [
    r"validation-auc:([0-9\.]+)",
    r".*\[[0-9]+\].*#011validation-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*",
    r".*\[[0-9]+\].*#011train-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*",
    r".*\[[0-9]+\].*#011validation-rmse:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*",
    r"loss=(\S+);",
    r"Test accuracy: (.*?);",
    r"Train accuracy: (.*?);",
    r"val_loss: ([0-9\.]+)",
    r"val_accuracy: ([0-9\.]+)",
    r"\[epoch (?:\d+)\] validation: precision=([0-9.]+)",
    r"recall=(.*?),",
    r"f1[_-]score\s*[:=]\s*([0-9.]+)",
    r"#quality_metric: host=\S+, epoch=\d+, train mse <loss>=(\S+)",
    r"(?:mse|rmse)=([0-9.]+)",
    r"'eval_loss': ([0-9.e-]+)",
    r#""learning_rate": ([0-9.e-]+)"#,
    r"perplexity ([0-9]+\.[0-9]+)",
    r"BLEU = ([0-9.]+),",
    r"images/sec: ([0-9.]+)",
    r"mAP@0\.5 ([0-9.]+)",
];

/// One line in twenty; `{a}` and `{b}` are numbers.
const METRIC_LINES: [&str; 4] = [
    "[{a}]\ttrain-auc:0.{b}\tvalidation-auc:0.{a} best so far after some more rounds of boosting",
    "epoch {a} finished: loss=0.{b}; time per step 12.5 ms, learning rate unchanged since {a}",
    "Test accuracy: 0.{a}; evaluated on {b} held out examples, no improvement was expected here",
    "200/200 [======] - 3s 15ms/step - val_loss: 0.{a} - val_accuracy: 0.{b} - checkpoint is written",
];

/// The others.
const OTHER_LINES: [&str; 4] = [
    "2026-01-02 03:04:05,{a} INFO worker-{b} reading shard {a} of {b} from the channel train, {b} rows",
    "step {a} of {b}: forward 3.1 ms backward 6.2 ms optimizer 0.4 ms data 0.2 ms queue {b} items",
    "WARNING:root:gradient norm {a}.{b} was clipped to 1.0 in layer encoder.block.{a}.attention.output",
    "DEBUG memory allocated {a} MB reserved {b} MB peak {a} MB fragments {b} device cuda:0 stream default",
];

/// About `bytes` bytes of log. A generator written out, so that the script makes the same log.
fn log(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 1;
    let mut draw = move |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % n
    };
    let mut text = String::new();
    let mut lines = 0;
    while text.len() < bytes {
        let (a, b, which) = (draw(100_000), draw(100_000), draw(4));
        let templates = if lines % 20 == 19 { METRIC_LINES } else { OTHER_LINES };
        let template = templates[usize::try_from(which).unwrap_or(0)];
        text.push_str(&template.replace("{a}", &a.to_string()).replace("{b}", &b.to_string()));
        text.push('\n');
        lines += 1;
    }
    text.into_bytes()
}

fn scrape(c: &mut Criterion) {
    let log = log(8 << 20);
    let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
    let named = |regex: &&str| MetricDefinition { name: "metric".to_owned(), regex: (*regex).to_owned() };
    let definitions: Vec<MetricDefinition> = EXPRESSIONS.iter().map(named).collect();
    let mut scraper = Scraper::new(&definitions).expect("the expressions are good");
    let mut group = c.benchmark_group("scrape");
    group.throughput(Throughput::Bytes(log.len() as u64)).sample_size(10);

    group.bench_function("scraper", |b| {
        let mut matches = Vec::new();
        b.iter(|| {
            matches.clear();
            for line in &lines {
                scraper.scrape(black_box(line), &mut matches);
            }
            matches.len()
        });
    });

    let regexes: Vec<Regex> = EXPRESSIONS.iter().map(|e| Regex::new(e).expect("the expressions are good")).collect();
    let text = String::from_utf8(log.clone()).expect("the log is text");
    let lines: Vec<&str> = text.lines().collect();
    group.bench_function("plain loop", |b| {
        b.iter(|| {
            let mut matches = 0;
            for line in &lines {
                let escaped = line.contains('\t').then(|| line.replace('\t', "#011"));
                for regex in &regexes {
                    let mut read = |text: &str| {
                        let values = regex.captures_iter(text).filter_map(|c| c.get(1)?.as_str().parse::<f64>().ok());
                        let before = matches;
                        matches += values.count();
                        matches > before
                    };
                    if !read(black_box(line)) {
                        escaped.as_deref().map(&mut read);
                    }
                }
            }
            matches
        });
    });
    group.finish();

    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("20 definitions", |b| b.iter(|| Scraper::new(black_box(&definitions)).is_ok()));
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
