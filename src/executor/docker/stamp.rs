//! Times as a Docker daemon writes them.
//!
//! Invariant: nanoseconds are kept: they tell one line of a log from the next.

use crate::domain::time::Timestamp;

/// Nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub(super) struct Stamp(i64);

impl Stamp {
    /// Reads RFC 3339 with up to nine digits of a second; none for anything else, and for times before 1970, such as the
    /// daemon's "0001-01-01T00:00:00Z" for never.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        let mut date = date.splitn(3, '-').map(str::parse::<i64>);
        let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
        let zone_at = time.find(['Z', '+', '-'])?;
        let (clock, zone) = time.split_at(zone_at);
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
        let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
        let nanos = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()? };
        let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
        let since = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
        (since >= 0).then_some(Self(since))
    }

    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp(self.0 / 1_000_000)
    }

    /// Whole seconds since 1970.
    pub(super) fn seconds(self) -> i64 {
        self.0 / 1_000_000_000
    }

    /// Milliseconds since an earlier one.
    pub(super) fn since_ms(self, earlier: Self) -> i64 {
        (self.0 - earlier.0) / 1_000_000
    }
}

/// Days from 1970-01-01, in the proleptic Gregorian calendar; none for no date.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March here, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    Some(year * 365 + year / 4 - year / 100 + year / 400 + in_year - 719_468)
}

/// Seconds east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = if let Some(rest) = zone.strip_prefix('+') { (1, rest) } else { (-1, zone.strip_prefix('-')?) };
    let (hours, minutes) = rest.split_once(':')?;
    Some(sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-03-01T00:00:00.5Z", Some(951_868_800_500_000_000)),
            ("2026-11-21T09:29:05.533916848Z", Some(1_795_253_345_533_916_848)),
            ("2026-11-21T10:29:05.533916848+01:00", Some(1_795_253_345_533_916_848)),
            ("2024-02-29T23:59:59.000000001-00:30", Some(1_709_252_999_000_000_001)),
            ("0001-01-01T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("now", None),
            ("", None),
        ] {
            assert_eq!(Stamp::parse(text).map(|stamp| stamp.0), expected, "{text}");
        }
    }
}
