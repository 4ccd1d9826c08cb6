//! The commands of the `tunesmith` binary.
//!
//! Invariant: what is asked for goes to standard output, everything else to standard error; the exit code is 0, 1 where
//! the command failed, 2 where the command line makes no sense.

mod ask_tell;
mod demo;
mod executors;
mod interrupt;
mod logs;
mod say;
mod serve;
mod server;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use self::say::{note, say};
use crate::config::{DatabaseUrl, Environment, Flags, Loaded};
use crate::store::Db;
use crate::telemetry;

/// Self-hosted automatic model tuning that speaks the AWS SageMaker API.
#[derive(Debug, Parser)]
#[command(name = "tunesmith", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and train.
    Serve {
        /// Address and port; only loopback addresses until the API has keys. Port 0 takes a free one.
        #[arg(long, value_name = "ADDRESS")]
        listen: Option<SocketAddr>,
        #[command(flatten)]
        common: Common,
    },
    /// Tune a small network on a real data set and show the best models: nothing to set up, nothing left behind.
    Demo(demo::DemoArgs),
    /// Print a training job's log.
    Logs(logs::LogsArgs),
    /// Interrupt a training job on spot capacity, as a cloud that takes its machine away does: it goes on by itself.
    Interrupt(interrupt::InterruptArgs),
    /// Suggest hyperparameters to a program that asks, one JSON object a line: to measure the search beside others.
    AskTell,
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Bring the database's schema up to date; `serve` does it by itself.
    Migrate {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings, and show those in force and where each comes from.
    Check {
        #[command(flatten)]
        common: Common,
    },
}

/// Flags of every command that reads the configuration.
#[derive(Debug, Args)]
struct Common {
    /// The server's folder: database, buckets, logs, running attempts.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// `sqlite:///path/to/file` or `postgres://user:password@host/database`.
    #[arg(long, value_name = "URL", value_parser = |text: &str| Ok::<_, std::convert::Infallible>(DatabaseUrl::new(text)))]
    database_url: Option<DatabaseUrl>,
    /// A TOML file; see tunesmith.default.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Common {
    fn load(self, listen: Option<SocketAddr>) -> anyhow::Result<Loaded> {
        let Self { data_dir, database_url, config } = self;
        let flags = Flags { config, listen, data_dir, database_url };
        Ok(Loaded::load(&flags, &Environment::of_process())?)
    }
}

/// Runs the command that the process' arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // The demo's training program: what follows `demo-trainer` is the container contract's, not a flag of ours.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().as_deref() == Some(OsStr::new(demo::TRAINER_COMMAND)) {
        return ExitCode::from(demo::trainer::run(&Environment::of_process()));
    }
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Serve { listen, common } => {
            let loaded = common.load(listen)?;
            telemetry::init(&loaded.settings.log)?;
            let runtime = runtime()?;
            let served = runtime.block_on(serve::run(&loaded));
            // Whatever still blocks a thread, such as a look at a slow disk, must not hold the end up.
            runtime.shutdown_background();
            served
        }
        Command::Demo(arguments) => runtime()?.block_on(demo::run(&arguments)),
        Command::AskTell => {
            ask_tell::serve(std::io::stdin().lock(), std::io::stdout().lock()).context("the conversation broke off")
        }
        Command::Logs(arguments) => logs::run(&arguments),
        Command::Interrupt(arguments) => interrupt::run(&arguments),
        Command::Config { command: ConfigCommand::Check { common } } => check(&common.load(None)?),
        Command::Migrate { common } => runtime()?.block_on(migrate(&common.load(None)?)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the async runtime can't be started")
}

fn check(loaded: &Loaded) -> anyhow::Result<()> {
    for (line, source) in loaded.lines() {
        say(format_args!("{line}  # {source}"));
    }
    server::check(&loaded.settings, loaded.file.as_deref(), nix::unistd::Uid::effective().as_raw())
}

async fn migrate(loaded: &Loaded) -> anyhow::Result<()> {
    let url = &loaded.settings.database_url;
    server::make_data_dir(&loaded.settings.data_dir)?;
    let db = Db::connect(url.expose()).await.with_context(|| format!("can't open the database {url}"))?;
    db.migrate().await.with_context(|| format!("can't migrate the database {url}"))?;
    say(format_args!("the schema of {url} is up to date"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
