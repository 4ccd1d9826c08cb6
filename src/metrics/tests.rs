//! Scraping against a plain loop over the same expressions, and what each kind of line and number gives.

use proptest::prelude::*;
use regex::Regex;

use super::{Match, Scraper};
use crate::domain::request::MetricDefinition;

/// Expressions as users write them, some awkward.
const EXPRESSIONS: &[&str] = &[
    r"validation-auc:([0-9\.]+)",
    r".*\[[0-9]+\].*#011validation-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*",
    r"loss=(\S+);",
    r"Test accuracy: (.*?);",
    r"(?i)LOSS\W+(\d+)",
    r"(\d+)",
    r"^(\S+)$",
    r"(?:mse|rmse)=(\d+)|mae=(\d+)",
    r"a\b(?:b|\s)*([0-9]*)",
    r"#011(\d)",
    r"1(1)",
];

fn definitions(expressions: &[&str]) -> Vec<MetricDefinition> {
    let named = |(i, regex): (usize, &&str)| MetricDefinition { name: format!("m{i}"), regex: (*regex).to_owned() };
    expressions.iter().enumerate().map(named).collect()
}

fn scraper(expressions: &[&str]) -> Scraper {
    Scraper::new(&definitions(expressions)).unwrap()
}

/// (definition, value) of every match; values as bits, so that nan equals itself.
fn pairs(matches: &[Match]) -> Vec<(usize, u64)> {
    matches.iter().map(|m| (m.definition, m.value.to_bits())).collect()
}

fn values(expression: &str, line: &[u8]) -> Vec<f64> {
    let mut out = Vec::new();
    scraper(&[expression]).scrape(line, &mut out);
    out.iter().map(|m| m.value).collect()
}

/// What the documentation says, said as plainly as can be.
fn naive(expressions: &[&str], line: &[u8]) -> Vec<(usize, u64)> {
    let text = String::from_utf8_lossy(line);
    let mut out = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let regex = Regex::new(expression).unwrap();
        for part in text.split('\r') {
            let read = |text: &str| -> Vec<f64> {
                let groups = regex.captures_iter(text).filter_map(|c| c.iter().skip(1).flatten().next());
                groups.filter_map(|group| group.as_str().trim().parse().ok()).collect()
            };
            let mut values = read(part);
            if values.is_empty() && part.contains('\t') {
                values = read(&part.replace('\t', "#011"));
            }
            out.extend(values.iter().map(|v| (index, v.to_bits())));
        }
    }
    out
}

#[test]
fn built_in_containers_expressions_match_lines_with_tabs() {
    let xgboost = r".*\[[0-9]+\].*#011validation-auc:([-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?).*";
    assert_eq!(values(xgboost, b"[12]\ttrain-auc:0.97\tvalidation-auc:0.91"), [0.91]);
    assert_eq!(values(xgboost, b"[12]#011train-auc:0.97#011validation-auc:0.91"), [0.91]);
    assert!(values(xgboost, b"[12] validation-auc:0.91").is_empty());
}

#[test]
fn a_line_with_tabs_is_read_once() {
    assert_eq!(values(r"auc:(\S+)", b"a\tauc:0.5"), [0.5]);
    assert_eq!(values(r"[\t1]auc:(\S+)", b"a\tauc:0.5\tauc:0.6"), [0.5, 0.6]);
}

#[test]
fn every_match_counts_and_has_a_place_of_its_own() {
    let mut out = Vec::new();
    scraper(&[r"loss=([0-9.]+)", r"acc=([0-9.]+)"]).scrape(b"acc=1 loss=2 loss=3\rloss=4\r", &mut out);
    let expected = [(0, 0, 2.0), (0, 1, 3.0), (0, 2, 4.0), (1, 0, 1.0)];
    assert_eq!(out, expected.map(|(definition, nth, value)| Match { definition, nth, value }));
}

#[test]
fn progress_bars_are_lines_of_their_own() {
    assert_eq!(values(r"^loss=(.*)$", b"loss=3\rloss=2\rloss=1"), [3.0, 2.0, 1.0]);
    assert_eq!(values(r"loss=(.*)", b"loss=3\r"), [3.0]);
}

#[test]
fn bytes_that_are_not_utf8_are_passed_over() {
    assert_eq!(values(r"loss=(\S+);", b"\xff\xfeloss=0.5; \xc3"), [0.5]);
    assert_eq!(values(r"^.*loss=(\d)", b"\xff\x80 loss=1"), [1.0]);
    assert_eq!(values(r"loss=(\d).*end", b"loss=1 \xff end"), [1.0]);
    assert!(values(r"loss=(\S+)", b"loss=0\xff5").is_empty());
}

#[test]
fn numbers_that_are_not_finite_are_handed_on() {
    assert_eq!(values(r"loss=(\S+)", b"loss=1e400 loss=-inf"), [f64::INFINITY, f64::NEG_INFINITY]);
    assert!(values(r"loss=(\S+)", b"loss=nan")[0].is_nan());
}

#[test]
fn the_group_that_took_part_is_the_value() {
    assert_eq!(values(r"mse=(\d+)|mae=(\d+)", b"mae=4 mse=5"), [4.0, 5.0]);
}

#[test]
fn what_never_matched_is_told_with_what_it_looked_for() {
    let mut scraper = scraper(&[r"loss=(\d+)", r"acc=(\S+)", r"auc=(\d+)"]);
    let mut out = Vec::new();
    for line in ["loss=1", "acc=0,93", "acc=12%", ""] {
        scraper.scrape(line.as_bytes(), &mut out);
    }
    let told: Vec<String> = scraper.unmatched().map(|u| u.to_string()).collect();
    assert_eq!(
        told,
        [
            r"metric m1: acc=(\S+) matched 2 times in 4 lines, but its group was never a number: the first was [0,93]",
            r"metric m2: no line of 4 matched auc=(\d+)",
        ]
    );
    assert_eq!(scraper.lines(), 4);
    let fork = scraper.fork();
    assert_eq!((fork.lines(), fork.unmatched().count()), (0, 3));
}

#[test]
fn no_definitions_read_nothing() {
    let mut out = Vec::new();
    scraper(&[]).scrape(b"loss=1", &mut out);
    assert!(out.is_empty());
}

#[test]
fn a_bad_expression_is_told_with_its_metric() {
    let error = Scraper::new(&definitions(&[r"(\d)", r"(\d)(?=x)"])).unwrap_err();
    assert!(
        error.to_string().starts_with(
            "The regular expression of metric definition m1 can't be used: look-ahead ((?= at character 5) can't be used."
        ),
        "{error}"
    );
}

#[test]
fn a_megabyte_without_a_break_is_read() {
    let mut line = vec![b'x'; 1 << 20];
    line.extend_from_slice(b" loss=0.25; ");
    line.extend(vec![0xff; 1 << 18]);
    assert_eq!(values(r"loss=(\S+);", &line), [0.25]);
    assert_eq!(values(r".*loss=(\S+);.*", &line), [0.25]);
}

/// Lines made of what the expressions look for.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "validation-auc:",
            "auc",
            "loss=",
            "LOSS: ",
            "Test accuracy: ",
            "mse=",
            "rmse=",
            "mae=",
            "[3]",
            "\t",
            "\t",
            "#011",
            "#",
            "0",
            "1",
            "11",
            ";",
            "\r",
            " ",
            "0.5",
            "-1e3",
            "nan",
            "inf",
            "1e400",
            "é",
            "a",
            "b",
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn lines_read_as_the_plain_loop_reads_them(line in any_line()) {
        let mut out = Vec::new();
        scraper(EXPRESSIONS).scrape(&line, &mut out);
        prop_assert_eq!(pairs(&out), naive(EXPRESSIONS, &line));
    }

    #[test]
    fn the_order_of_lines_does_not_change_what_each_gives(lines in prop::collection::vec(any_line(), 1..6)) {
        let mut together = scraper(EXPRESSIONS);
        for line in &lines {
            let (mut shared, mut alone) = (Vec::new(), Vec::new());
            together.scrape(line, &mut shared);
            scraper(EXPRESSIONS).scrape(line, &mut alone);
            prop_assert_eq!(pairs(&shared), pairs(&alone));
        }
    }

    #[test]
    fn matches_of_a_definition_have_places_within_the_line(line in any_line()) {
        let mut out = Vec::new();
        scraper(EXPRESSIONS).scrape(&line, &mut out);
        for definition in 0..EXPRESSIONS.len() {
            let places: Vec<u32> = out.iter().filter(|m| m.definition == definition).map(|m| m.nth).collect();
            prop_assert!(places.iter().copied().eq(0..u32::try_from(places.len()).unwrap()));
            prop_assert!(places.len() <= line.len());
        }
    }

    #[test]
    fn any_expression_and_any_bytes_end_without_a_panic(expression in r"[()\[\]{}?*+|^$.\\a-z0-9,:=!<>P#é \t-]{0,20}",
        line in prop::collection::vec(any::<u8>(), 0..60)) {
        let definition = MetricDefinition { name: "m".to_owned(), regex: expression };
        match Scraper::new(&[definition]) {
            Ok(mut scraper) => scraper.scrape(&line, &mut Vec::new()),
            Err(error) => prop_assert!(!error.why.is_empty()),
        }
    }

    #[test]
    fn required_texts_never_hide_a_match(
        expression in r"(?:(?:a|b|#011|01|1|[ab]|\(\?:ab\|#0\)|[ab1]\?|\.\*){1,5}\(1\)?){1,2}\([0-9]\*\)", line in "[ab#01\t]{0,14}"
    ) {
        let mut out = Vec::new();
        if let Ok(mut scraper) = Scraper::new(&definitions(&[expression.as_str()])) {
            scraper.scrape(line.as_bytes(), &mut out);
            prop_assert_eq!(pairs(&out), naive(&[expression.as_str()], line.as_bytes()));
        }
    }
}
