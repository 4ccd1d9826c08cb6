//! What commands say.
//!
//! Invariant: a reader that went away or a full disk ends no command in the middle, as `println!` would: it is not heard.

use std::fmt::Arguments;
use std::io::Write;

/// A line on standard output.
pub(super) fn say(line: Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
pub(super) fn note(line: Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
