//! `tunesmith logs`: a training job's log, from the server.
//!
//! Invariant: an offset is sent only with the attempt that it was answered for, so a following reader sees each attempt
//! from its first line on, and none of them twice.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::say::note;
use crate::config::{Environment, Flags, Loaded};

/// How long `-f` waits where there is nothing new, or no answer.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// How long `-f` waits for a server that answered before, such as one that is being restarted.
const PATIENCE: Duration = Duration::from_mins(1);

/// Arguments of `tunesmith logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The training job's name.
    job: String,
    /// Go on until the job is over, into further attempts too.
    #[arg(short, long)]
    follow: bool,
    /// Only this attempt, counted from 1; by default the latest.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    /// The job's region; by default `AWS_REGION`, else `AWS_DEFAULT_REGION`, else the server's.
    #[arg(long)]
    region: Option<String>,
    /// Where the server is; by default `AWS_ENDPOINT_URL_SAGEMAKER`, else the configured address.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
}

/// Copies the log to standard output.
pub(super) fn run(arguments: &LogsArgs) -> anyhow::Result<()> {
    let log = Log::named_by(arguments, &Environment::of_process())?;
    let mut told = |text: &str| note(format_args!("{text}"));
    log.copy(&mut std::io::stdout().lock(), &mut told)
}

/// Which log to read, and how.
struct Log {
    agent: ureq::Agent,
    endpoint: String,
    job: String,
    region: Option<String>,
    follow: bool,
    /// The one attempt asked for.
    only: Option<u32>,
    poll_every: Duration,
    patience: Duration,
}

/// One answer of the server.
struct Page {
    text: Vec<u8>,
    /// None where there is no such attempt.
    attempt: Option<u32>,
    next: u64,
    end: bool,
}

/// No answer, or not a page.
struct Failure {
    error: anyhow::Error,
    /// Whether a server that is being restarted fails like this.
    may_pass: bool,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error, may_pass: false }
    }
}

impl Log {
    fn named_by(arguments: &LogsArgs, environment: &Environment) -> anyhow::Result<Self> {
        let region = region(&arguments.job, arguments.region.as_deref(), environment)?;
        let endpoint = endpoint(arguments.endpoint_url.as_deref(), environment)?;
        Ok(Self {
            agent: agent(&endpoint),
            endpoint,
            job: arguments.job.clone(),
            region,
            follow: arguments.follow,
            only: arguments.attempt,
            poll_every: POLL_EVERY,
            patience: PATIENCE,
        })
    }

    /// Copies the log; `note` gets remarks for the user.
    fn copy(&self, out: &mut impl Write, note: &mut impl FnMut(&str)) -> anyhow::Result<()> {
        let (mut attempt, mut offset, mut patience) = (self.only, 0, Duration::ZERO);
        loop {
            let page = self.patiently(attempt, offset, patience, note)?;
            if self.follow {
                patience = self.patience;
            }
            match out.write_all(&page.text).and_then(|()| out.flush()) {
                // `tunesmith logs JOB | head` is no failure.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("can't write the log")?,
            }
            let caught_up = page.next == offset;
            offset = page.next;
            match page.attempt {
                // The attempt is over, but there may be, or come, another.
                Some(number) if page.end && self.follow && self.only.is_none() => {
                    (attempt, offset) = (Some(number + 1), 0);
                    continue;
                }
                Some(number) => attempt = Some(number),
                None => {}
            }
            if page.end || (caught_up && !self.follow) {
                return match (page.attempt, self.only) {
                    (None, Some(number)) => bail!("the training job {} has no attempt {number}", self.job),
                    _ => Ok(()),
                };
            }
            if caught_up {
                std::thread::sleep(self.poll_every);
            }
        }
    }

    /// A page, from a server that may fail to answer for a while.
    fn patiently(
        &self,
        attempt: Option<u32>,
        offset: u64,
        patience: Duration,
        note: &mut impl FnMut(&str),
    ) -> anyhow::Result<Page> {
        let mut began = None;
        loop {
            let failure = match self.page(attempt, offset) {
                Ok(page) => return Ok(page),
                Err(failure) => failure,
            };
            let first = began.is_none();
            if !failure.may_pass || began.get_or_insert_with(Instant::now).elapsed() >= patience {
                return Err(failure.error);
            }
            if first {
                note(&format!("{:#}; trying again for {} s", failure.error, patience.as_secs()));
            }
            std::thread::sleep(self.poll_every);
        }
    }

    fn page(&self, attempt: Option<u32>, offset: u64) -> Result<Page, Failure> {
        let attempt = attempt.map(|number| format!("&attempt={number}")).unwrap_or_default();
        let region = self.region.as_ref().map(|region| format!("&region={region}")).unwrap_or_default();
        let url = format!("{}/v1/training-jobs/{}/log?offset={offset}{attempt}{region}", self.endpoint, self.job);
        let passing = |error| Failure { error, may_pass: true };
        let answer = self.agent.get(&url).call().with_context(|| format!("can't reach {}", self.endpoint));
        let mut response = answer.map_err(passing)?;
        let body = response.body_mut().read_to_vec().context("the server's answer broke off").map_err(passing)?;
        let status = response.status();
        if !status.is_success() {
            let error = anyhow::anyhow!("the server answered {status}: {}", message(&body));
            return Err(Failure { error, may_pass: status.is_server_error() });
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let next = header("x-tunesmith-next-offset")
            .and_then(|text| text.parse().ok())
            .context("the answer has no x-tunesmith-next-offset: is this a Tunesmith server?")?;
        let attempt = header("x-tunesmith-attempt").and_then(|text| text.parse().ok());
        let end = header("x-tunesmith-end") == Some("true");
        Ok(Page { text: body, attempt, next, end })
    }
}

/// The region of a training job, whose name is looked at too: what is no name can't be a part of a URL either.
pub(super) fn region(job: &str, given: Option<&str>, environment: &Environment) -> anyhow::Result<Option<String>> {
    let letters = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !letters(job) {
        bail!("{job} is not a training job's name: letters, digits and `-`");
    }
    let region = given.map(str::to_owned).or_else(|| {
        let variable = |name| environment.get(name).and_then(|value| value.to_str()).map(str::to_owned);
        variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"))
    });
    if let Some(region) = region.as_deref().filter(|region| !letters(region)) {
        bail!("{region} is not a region: letters, digits and `-`, such as us-east-1");
    }
    Ok(region)
}

/// Where the server is.
pub(super) fn endpoint(given: Option<&str>, environment: &Environment) -> anyhow::Result<String> {
    let given = given.map(str::to_owned);
    let variable = || environment.get("AWS_ENDPOINT_URL_SAGEMAKER").and_then(|value| value.to_str().map(str::to_owned));
    let url = match given.or_else(variable) {
        Some(url) => url,
        None => format!("http://{}", Loaded::load(&Flags::default(), environment)?.settings.listen),
    };
    Ok(url.trim_end_matches('/').to_owned())
}

/// A client for the server: past any proxy, where it is on this machine.
pub(super) fn agent(endpoint: &str) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    if is_loopback(endpoint) { config.proxy(None).build() } else { config.build() }.into()
}

fn is_loopback(endpoint: &str) -> bool {
    let uri = endpoint.parse::<ureq::http::Uri>().ok();
    let Some(host) = uri.as_ref().and_then(ureq::http::Uri::host) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The text of an error answer, or its beginning.
pub(super) fn message(body: &[u8]) -> String {
    let member = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|value| value.get("message").or_else(|| value.get("Message"))?.as_str().map(str::to_owned));
    member.unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        logs: LogsArgs,
    }

    fn log(endpoint: &str, line: &str, variables: &[(&str, &str)]) -> Log {
        let words = ["logs", "job", "--endpoint-url", endpoint];
        let arguments = Line::try_parse_from(words.into_iter().chain(line.split_whitespace())).unwrap().logs;
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        Log { poll_every: Duration::ZERO, ..Log::named_by(&arguments, &environment).unwrap() }
    }

    /// Answers connections by a script, each a request's expected query and its answer; "" hangs up. Then copies, and
    /// returns the copy, the result and the number of notes.
    fn copied(line: &str, variables: &[(&str, &str)], script: Vec<(&'static str, String)>) -> (String, bool, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for (query, answer) in script {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(&stream).lines().map(Result::unwrap);
                let request = lines.next().unwrap();
                lines.by_ref().find(String::is_empty).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                assert_eq!(request, format!("GET /v1/training-jobs/job/log?{query} HTTP/1.1"));
            }
        });
        let (mut out, mut notes) = (Vec::new(), 0);
        let result = log(&endpoint, line, variables).copy(&mut out, &mut |_| notes += 1);
        server.join().unwrap();
        (String::from_utf8(out).unwrap(), result.is_ok(), notes)
    }

    fn page(attempt: Option<u32>, text: &str, next: u64, end: bool) -> String {
        let attempt = attempt.map(|n| format!("x-tunesmith-attempt: {n}\r\n")).unwrap_or_default();
        format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{attempt}x-tunesmith-next-offset: {next}\r\n\
             x-tunesmith-end: {end}\r\n\r\n{text}",
            text.len()
        )
    }

    #[test]
    fn a_retried_attempt_is_followed_from_its_beginning() {
        let script = vec![
            ("offset=0", page(None, "", 0, false)),
            ("offset=0", page(Some(1), "one\n", 20, false)),
            ("offset=20&attempt=1", page(Some(1), "", 20, true)),
            ("offset=0&attempt=2", page(None, "", 0, false)),
            ("offset=0&attempt=2", page(Some(2), "two\n", 20, false)),
            ("offset=20&attempt=2", page(Some(2), "", 20, true)),
            ("offset=0&attempt=3", page(None, "", 0, true)),
        ];
        assert_eq!(copied("-f", &[], script), ("one\ntwo\n".into(), true, 0));
    }

    #[test]
    fn one_attempt_can_be_asked_for() {
        let script = vec![
            ("offset=0&attempt=1", page(Some(1), "one\n", 20, false)),
            ("offset=20&attempt=1", page(Some(1), "", 20, true)),
        ];
        assert_eq!(copied("-f --attempt 1", &[], script), ("one\n".into(), true, 0));
        let script = vec![("offset=0&attempt=9", page(None, "", 0, true))];
        assert_eq!(copied("--attempt 9", &[], script), (String::new(), false, 0));
    }

    #[test]
    fn the_region_is_the_flags_or_the_environments() {
        let over = || page(Some(1), "", 0, true);
        let variables = [("AWS_REGION", "eu-west-1"), ("AWS_DEFAULT_REGION", "eu-west-2")];
        for (line, variables, query) in [
            ("--region us-west-2", &variables[..], "offset=0&region=us-west-2"),
            ("", &variables[..], "offset=0&region=eu-west-1"),
            ("", &variables[1..], "offset=0&region=eu-west-2"),
        ] {
            assert_eq!(copied(line, variables, vec![(query, over())]), (String::new(), true, 0), "{query}");
        }
    }

    #[test]
    fn a_follower_outlasts_a_restart_of_the_server() {
        let unavailable = || "HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned();
        let script = vec![
            ("offset=0", page(Some(1), "one\n", 20, false)),
            ("offset=20&attempt=1", String::new()),
            ("offset=20&attempt=1", unavailable()),
            ("offset=20&attempt=1", page(Some(1), "two\n", 40, false)),
            ("offset=40&attempt=1", unavailable()),
            ("offset=40&attempt=1", page(Some(1), "", 40, true)),
            ("offset=0&attempt=2", page(None, "", 0, true)),
        ];
        assert_eq!(copied("-f", &[], script), ("one\ntwo\n".into(), true, 2));
        // A server that never answered, a reader that does not follow, and a refusal end at once.
        assert!(!copied("-f", &[], vec![("offset=0", unavailable())]).1);
        let script = vec![("offset=0", page(Some(1), "one\n", 20, false)), ("offset=20&attempt=1", unavailable())];
        assert!(!copied("", &[], script).1);
        let refused = unavailable().replace("503 Busy", "400 Bad Request");
        let script = vec![("offset=0", page(Some(1), "one\n", 20, false)), ("offset=20&attempt=1", refused)];
        assert!(!copied("-f", &[], script).1);
    }
}
