//! The server's own log, on standard error.
//!
//! Invariant: a failure is logged once, where it is handled, with all its causes; no line holds a secret, because
//! settings show none and requests are not logged.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat};

/// A log that cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("log.level is {level}, which is no level (error, warn, info, debug, trace) and no list of module=level")]
pub struct InvalidLevel {
    level: String,
    #[source]
    source: Option<tracing_subscriber::filter::ParseError>,
}

/// Logs from now on. The first call in a process decides.
pub fn init(settings: &Log) -> Result<(), InvalidLevel> {
    let filter = filter(settings)?;
    // It would complain of a log that cannot be written to that log, and panic.
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // An error means that a log is set up already, such as by another test of this process.
    let _ = match settings.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    Ok(())
}

/// Whether a log can be set up with the settings.
pub fn check(settings: &Log) -> Result<(), InvalidLevel> {
    filter(settings).map(drop)
}

fn filter(settings: &Log) -> Result<EnvFilter, InvalidLevel> {
    let invalid = |source| InvalidLevel { level: settings.level.clone(), source };
    // A lone word that is no level would name a module, and silence all others.
    let is_known = |part: &str| part.contains('=') || !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    if !settings.level.split(',').all(is_known) {
        return Err(invalid(None));
    }
    EnvFilter::try_new(&settings.level).map_err(|source| invalid(Some(source)))
}

/// An error with all its sources, for a log line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_level_or_names_modules() {
        let is_level = |level: &str| check(&Log { level: level.to_owned(), ..Log::default() }).is_ok();
        for level in ["error", "off", "INFO", "tunesmith=debug", "warn,tunesmith::scheduler=trace"] {
            assert!(is_level(level), "{level}");
        }
        for none in ["", "loud", "inf", "info,loud", "tunesmith=debugg"] {
            assert!(!is_level(none), "{none}");
        }
    }
}
