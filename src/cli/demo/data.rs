//! The demo's data set: 1,797 handwritten digits of 8 × 8 pixels, one a row, the digit last (see `NOTICE`).

/// In the binary, so that the demo needs no file beside it.
const DIGITS: &str = include_str!("../../../demo/digits.csv");

/// Training and validation rows: every fifth row validates.
#[must_use]
pub(super) fn split() -> (String, String) {
    let (mut train, mut validation) = (String::new(), String::new());
    for (index, line) in DIGITS.lines().enumerate() {
        let part = if index % 5 == 4 { &mut validation } else { &mut train };
        part.push_str(line);
        part.push('\n');
    }
    (train, validation)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_parts_are_the_whole() {
        let (train, validation) = super::split();
        assert_eq!((train.lines().count(), validation.lines().count()), (1438, 359));
    }
}
