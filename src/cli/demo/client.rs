//! AWS JSON 1.1 over HTTP, as any SDK speaks it, in a few lines.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// Longer than any answer takes; a server that hangs must not hang the demo.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one server.
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
}

impl Client {
    pub(super) fn new(address: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        // No proxy from the environment: the server is on this machine.
        Self { agent: config.proxy(None).build().into(), endpoint: format!("http://{address}") }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls an operation; an error answer is an error with the service's text.
    pub(super) async fn call(&self, operation: &'static str, input: Value) -> anyhow::Result<Value> {
        let (agent, endpoint) = (self.agent.clone(), self.endpoint.clone());
        let called = tokio::task::spawn_blocking(move || call(&agent, &endpoint, operation, &input)).await;
        called.context("the call panicked")?.with_context(|| format!("{operation} failed"))
    }
}

fn call(agent: &ureq::Agent, endpoint: &str, operation: &str, input: &Value) -> anyhow::Result<Value> {
    let mut response = agent
        .post(format!("{endpoint}/"))
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", format!("SageMaker.{operation}"))
        .send(input.to_string())?;
    let body = response.body_mut().read_to_vec()?;
    let answer = || serde_json::from_slice::<Value>(&body).context("the answer is not JSON");
    if response.status().is_success() {
        return if body.is_empty() { Ok(Value::Null) } else { answer() };
    }
    let answer = answer()?;
    let text = |member: &str| answer[member].as_str().map(str::to_owned);
    let message = text("message").or_else(|| text("Message")).unwrap_or_default();
    bail!("{}: {message}", text("__type").unwrap_or_else(|| response.status().to_string()))
}
