//! Texts that a line must contain for an expression to match it, so that most lines are passed over at a glance.
//!
//! An expression such as `.*\[[0-9]+\].*#011validation-auc:([0-9.]+).*` begins with nothing to look for, but no line without
//! `validation-auc:` matches it. [`required`] finds such texts anywhere in an expression.
//!
//! Invariant: every line that the expression matches, as it is or with `#011` for its tabs, contains at least one of
//! the texts, as it is. Texts say nothing about lines that do contain one: those are for the expression.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Alternatives kept; more say little and cost much.
const MOST: usize = 16;
/// A shorter text stands in nearly every line.
const SHORTEST: usize = 2;
/// The longest text worth looking for; keeps repetitions of repetitions small.
const LONGEST: usize = 64;

/// The texts of which every matching line has one; `None` where the expression does not need any.
pub(super) fn required(pattern: &str) -> Option<Vec<String>> {
    let hir = regex_syntax::parse(pattern).ok()?;
    let found = study(&hir);
    best([found.exact.as_deref().and_then(usable), found.inner])
}

/// What is known of a part of an expression.
struct Found {
    /// All the texts that the part can be, where they are few.
    exact: Option<Vec<String>>,
    /// Texts of which every match of the part contains one.
    inner: Option<Vec<String>>,
}

fn study(hir: &Hir) -> Found {
    let exact = |texts: Vec<String>| Found { exact: Some(texts), inner: None };
    let nothing = Found { exact: None, inner: None };
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => exact(vec![String::new()]),
        HirKind::Literal(literal) => match std::str::from_utf8(&literal.0) {
            Ok(text) => exact(vec![text.to_owned()]),
            Err(_) => nothing,
        },
        HirKind::Class(class) => members(class).map_or(nothing, exact),
        HirKind::Capture(capture) => study(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min == 0 => nothing,
        HirKind::Repetition(repetition) => {
            let once = study(&repetition.sub);
            if repetition.max == Some(1) {
                return once;
            }
            Found { exact: None, inner: best([once.exact.as_deref().and_then(usable), once.inner]) }
        }
        HirKind::Concat(parts) => concatenation(parts),
        HirKind::Alternation(parts) => alternation(parts),
    }
}

/// The characters of a small class, as texts.
fn members(class: &Class) -> Option<Vec<String>> {
    let Class::Unicode(class) = class else { return None };
    let count: usize = class.iter().map(regex_syntax::hir::ClassUnicodeRange::len).sum();
    (count <= 4).then(|| class.iter().flat_map(|range| range.start()..=range.end()).map(String::from).collect())
}

fn concatenation(parts: &[Hir]) -> Found {
    // The texts of the parts since the last one that could be anything.
    let mut run = vec![String::new()];
    let mut inner = None;
    let mut all_exact = true;
    for part in parts {
        let found = study(part);
        if let Some(longer) = found.exact.as_deref().and_then(|texts| product(&run, texts)) {
            run = longer;
            continue;
        }
        all_exact = false;
        let own = found.exact.as_deref().and_then(usable);
        inner = best([inner, usable(&run), own, found.inner]);
        run = found.exact.unwrap_or_else(|| vec![String::new()]);
    }
    if all_exact {
        Found { exact: Some(run), inner }
    } else {
        Found { exact: None, inner: best([inner, usable(&run)]) }
    }
}

fn alternation(parts: &[Hir]) -> Found {
    let found: Vec<Found> = parts.iter().map(study).collect();
    let merge = |texts: Option<Vec<Vec<String>>>| texts.map(|t| t.concat()).filter(|t| t.len() <= MOST);
    let inner = found.iter().map(|f| best([f.exact.as_deref().and_then(usable), f.inner.clone()])).collect();
    Found { exact: merge(found.into_iter().map(|f| f.exact).collect()), inner: merge(inner) }
}

/// Every text of `left` followed by every text of `right`, where that stays small.
fn product(left: &[String], right: &[String]) -> Option<Vec<String>> {
    if left.len() * right.len() > MOST {
        return None;
    }
    let all: Vec<String> = left.iter().flat_map(|l| right.iter().map(move |r| format!("{l}{r}"))).collect();
    all.iter().all(|text| text.len() <= LONGEST).then_some(all)
}

/// The longest raw part of each text; `None` where a text has none long enough.
fn usable(texts: &[String]) -> Option<Vec<String>> {
    texts.iter().map(|text| raw_part(text)).collect()
}

/// The longest part of a text that stands in the line itself, wherever the text was found: in the line, in its `#011` form,
/// or in a form with U+FFFD for bytes that are not UTF-8.
///
/// A `#011` in the text may be a tab of the line, and so may a part of it at either end.
fn raw_part(text: &str) -> Option<String> {
    if "#011".contains(text) {
        return None;
    }
    let mut inside = text;
    if let Some(tail) = ["011", "11", "1"].iter().find_map(|tail| inside.strip_prefix(tail)) {
        inside = tail;
    }
    if let Some(head) = ["#01", "#0", "#"].iter().find_map(|head| inside.strip_suffix(head)) {
        inside = head;
    }
    let parts = inside.split("#011").flat_map(|part| part.split('\u{FFFD}'));
    parts.max_by_key(|part| part.len()).filter(|part| part.len() >= SHORTEST).map(str::to_owned)
}

/// The texts that say most: the shortest of them as long as can be, then as few as can be.
fn best<const N: usize>(candidates: [Option<Vec<String>>; N]) -> Option<Vec<String>> {
    let merit =
        |texts: &Vec<String>| (texts.iter().map(String::len).min().unwrap_or(0), MOST.saturating_sub(texts.len()));
    candidates.into_iter().flatten().filter(|texts| !texts.is_empty()).max_by_key(merit)
}

#[cfg(test)]
mod tests {
    use super::required;

    fn texts(pattern: &str) -> Vec<String> {
        let mut texts = required(pattern).unwrap_or_default();
        texts.sort();
        texts
    }

    #[test]
    fn the_longest_text_is_found_wherever_it_stands() {
        assert_eq!(texts(r"validation-auc:([0-9\.]+)"), ["validation-auc:"]);
        assert_eq!(texts(r".*\[[0-9]+\].*#011validation-auc:([0-9]+).*"), ["validation-auc:"]);
        assert_eq!(texts(r"loss=(\S+); accuracy=\S+"), ["; accuracy="]);
        assert_eq!(texts(r"(?:train|val)_loss: (\d+)"), ["train_loss: ", "val_loss: "]);
        assert_eq!(texts(r"(?:mse|rmse)=(\d+)"), ["mse=", "rmse="]);
        assert_eq!(texts(r"[Ll]oss (\d+)"), ["Loss ", "loss "]);
        assert_eq!(texts(r"(?:loss: )+(\d)"), ["loss: "]);
        assert_eq!(texts(r"^\s*acc(\d)$"), ["acc"]);
    }

    #[test]
    fn nothing_is_required_where_nothing_is_sure() {
        for pattern in [r"(\d+)", r"(?:loss)?(\d)", r"(?:loss|\d)(\d)", r"a(\d)", r"(.*)", r"(?:loss)*(\d)"] {
            assert_eq!(required(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn parts_that_may_be_tabs_are_left_out() {
        assert_eq!(texts("#011auc(.)"), ["auc"]);
        assert_eq!(texts("011auc#0(.)"), ["auc"]);
        assert_eq!(texts("ab#011#011abc#(.)"), ["abc"]);
        assert_eq!(required("#011(.)"), None);
        assert_eq!(required("01(.)"), None);
        assert_eq!(texts("ab\u{FFFD}abc(.)"), ["abc"]);
    }

    #[test]
    fn large_products_stay_small() {
        assert!(required(&"[abcd]".repeat(80)).is_none_or(|texts| texts.len() <= 16));
        assert!(texts("(?:(?:(?:abcd){60}){60}){60}(x)").iter().all(|text| text.len() <= 64));
    }
}
