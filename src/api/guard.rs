//! Who may talk to the server: programs of this machine, and no web page.
//!
//! Invariant: a request passes only where its Host is a loopback name or address and it carries no Origin. Signatures are
//! not verified yet and this API starts programs, so neither a page in a browser nor a name that resolves to this machine
//! (DNS rebinding) may reach it.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::http::header;

/// Whether a request may pass; if not, what to tell the client.
pub(crate) fn verdict<B>(request: &axum::http::Request<B>) -> Result<(), &'static str> {
    if request.headers().contains_key(header::ORIGIN) {
        return Err("Requests with an Origin header come from web pages, which this API does not serve.");
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A request line may name a host too, and then both have to be this machine.
    let target = request.uri().authority().map_or("localhost", |authority| authority.as_str());
    if hosts.next().is_some() || !is_loopback(host) || !is_loopback(target) {
        return Err("The Host header must name this machine: localhost, 127.0.0.1 or [::1], with any port.");
    }
    Ok(())
}

/// Whether `name[:port]` is a loopback name or address.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse() == Ok(Ipv6Addr::LOCALHOST);
    }
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_pass() {
        for good in ["localhost", "LocalHost:8686", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:8686"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            ":",
            "localhost:",
            "localhost:x",
            "localhost:99999",
            "localhost.evil.example",
            "evil.example",
            "evil.example:8686",
            "128.0.0.1",
            "127.1",
            "2130706433",
            "0.0.0.0",
            "::1",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "user@localhost",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn origins_and_foreign_request_lines_are_refused() {
        let request = |uri: &str, headers: &[(&str, &str)]| {
            let mut builder = axum::http::Request::builder().uri(uri);
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            verdict(&builder.body(()).unwrap()).is_ok()
        };
        assert!(request("/", &[("host", "localhost:8686")]));
        assert!(!request("/", &[]));
        assert!(!request("/", &[("host", "localhost"), ("host", "localhost")]));
        assert!(!request("/", &[("host", "localhost"), ("origin", "http://localhost:8686")]));
        assert!(!request("/", &[("host", "localhost"), ("origin", "null")]));
        assert!(request("http://localhost/", &[("host", "localhost")]));
        assert!(!request("http://evil.example/", &[("host", "localhost")]));
    }
}
