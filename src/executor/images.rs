//! The images registered in the configuration: the only programs that a request can name.
//!
//! Invariant: a request's `TrainingImage` selects an entry or nothing; no part of it ever becomes a path or an argument.

use crate::domain::request::MetricDefinition;

/// `[[images]]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// An image name, or a glob pattern over image names.
    pub name: String,
    /// The program and its first arguments; `train` is appended.
    pub command: Vec<String>,
    /// What requests without definitions of their own get.
    #[serde(default)]
    pub metric_definitions: Vec<MetricDefinition>,
}

/// All registered images, compiled for matching.
#[derive(Debug, Default)]
pub struct Images {
    images: Vec<Image>,
}

/// A registered name that is no glob pattern.
#[derive(Debug, thiserror::Error)]
#[error("the image name {name} is not a valid glob pattern: {why}")]
pub struct InvalidPattern {
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub why: String,
}

impl Images {
    /// Compiles the patterns.
    pub fn new(images: Vec<Image>) -> Result<Self, InvalidPattern> {
        Ok(Self { images })
    }

    /// The image that a request's `TrainingImage` names: an exact name first, then the first pattern that matches.
    #[must_use]
    pub fn find(&self, training_image: &str) -> Option<&Image> {
        self.images.iter().find(|i| i.name == training_image)
    }

    /// The registered names, as configured.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|i| i.name.as_str())
    }
}
