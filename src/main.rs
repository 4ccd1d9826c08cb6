//! The `tunesmith` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a supervisor is one thread, and it starts hundreds of times a second.
    if let Some(code) = tunesmith::executor::process::supervisor::dispatch(std::env::args_os()) {
        return code;
    }
    #[cfg(feature = "docker")]
    if let Some(code) = tunesmith::executor::docker::supervisor::dispatch(std::env::args_os()) {
        return code;
    }
    #[cfg(feature = "docker")]
    if let Some(code) = tunesmith::executor::docker::streams::dispatch(std::env::args_os()) {
        return code;
    }
    tunesmith::cli::main()
}
