//! What a process that streams tells whoever started it, in lines.
//!
//! Invariant: a line is a letter for whose fault it is, and a text for the user; it is short enough for a pipe to take it
//! as one.

use super::StreamError;
use crate::domain::outcome::ExitCause;

/// The longest line, bytes.
pub(in crate::executor) const MOST_BYTES: usize = 2048;

/// The line of what cannot be streamed, with its end.
pub(super) fn line(error: &StreamError) -> String {
    let whose = if matches!(error, StreamError::Machine { .. }) { 'm' } else { 'd' };
    let mut text = format!("{whose}{}", error.to_string().replace('\n', " "));
    text.truncate(text.floor_char_boundary(MOST_BYTES - 1));
    text.push('\n');
    text
}

/// Why an attempt cannot go on, as a line without its end tells; none where it tells of nothing such.
pub(in crate::executor) fn cause(line: &[u8]) -> Option<ExitCause> {
    let (whose, text) = line.split_first()?;
    let message = String::from_utf8_lossy(text).into_owned();
    match whose {
        b'd' => Some(ExitCause::InputRefused { message }),
        b'm' => Some(ExitCause::Infrastructure { message }),
        _ => None,
    }
}
