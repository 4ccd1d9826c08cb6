//! Settings of buckets that are kept in S3, or in a store that speaks its protocol.
//!
//! Invariant: a secret is shown to nobody: it is neither printed nor serialised.

use serde::{Deserialize, Serialize, Serializer};

/// `[[buckets]]`: where a bucket is, if not in the data directory.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// The bucket's name; `*` for every bucket that no other entry names.
    pub name: String,
    /// Such as `http://127.0.0.1:9000`; AWS where absent.
    #[serde(default)]
    pub endpoint: String,
    /// The bucket's region; the server's `region` where absent.
    #[serde(default)]
    pub region: String,
    /// With the secret: static credentials. Absent: the environment's, a web identity, the container's or the instance's.
    #[serde(default)]
    pub access_key_id: String,
    /// See `access_key_id`.
    #[serde(default)]
    pub secret_access_key: Secret,
    /// Whether the bucket's name stands in the path rather than in the host name; true where there is an endpoint.
    pub path_style: Option<bool>,
}

/// `[channels]`: the local copies of channels that come from `[[buckets]]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Channels {
    /// Disk that they may take together, GiB.
    pub max_gib: u64,
    /// Disk that they leave free, GiB.
    pub min_free_gib: u64,
}

impl Default for Channels {
    fn default() -> Self {
        Self { max_gib: 100, min_free_gib: 1 }
    }
}

/// A text that is never shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is shown in its place.
    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { "***" }
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl Bucket {
    /// What is wrong with an entry, and what to write instead.
    pub(super) fn fault(&self) -> Option<String> {
        let name = &self.name;
        if self.access_key_id.is_empty() != self.secret_access_key.expose().is_empty() {
            return Some(format!("the bucket {name} needs access_key_id and secret_access_key, or neither"));
        }
        let endpoint = &self.endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Some(format!(
                "the endpoint {endpoint} of the bucket {name} does not begin with http:// or https://"
            ));
        }
        if endpoint.contains('@') {
            return Some(format!(
                "the endpoint of the bucket {name} has a user in it: write access_key_id and secret_access_key instead"
            ));
        }
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name != "*" && (name.is_empty() || name.starts_with('.') || !name.chars().all(known)) {
            return Some(format!("{name:?} is no bucket's name: write it without s3://, or * for every other bucket"));
        }
        None
    }
}
