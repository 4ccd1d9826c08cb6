//! The HTTP edge: AWS JSON 1.1 over `POST /`, health, the API document, training-job logs.
//!
//! Invariant: only this module knows axum and the wire; every byte from outside is bounded and checked here before a
//! use case sees it.

use std::sync::Arc;

use crate::app::App;

pub mod aws;

/// Settings of the edge.
#[derive(Debug, Clone)]
pub struct ApiSettings {
    /// Twelve digits; in every ARN.
    pub account: String,
    /// The region of requests without a credential scope.
    pub default_region: String,
    /// Largest request body.
    pub max_body_bytes: usize,
    /// Seals `NextToken`s; kept in the data directory or the database, so that tokens outlive a restart.
    pub token_key: [u8; 32],
}

/// Set when the server drains: readiness goes red.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<std::sync::atomic::AtomicBool>);

impl Readiness {
    /// Ready from now on, or no more.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether the server takes requests.
    #[must_use]
    pub fn get(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// All routes.
pub fn router(app: App, settings: ApiSettings, readiness: Readiness) -> axum::Router {
    let _ = (app, settings, readiness);
    axum::Router::new()
}
