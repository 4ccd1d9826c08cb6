//! `NextToken`: a list's cursor, sealed, so that a client can hand it back but neither read meaning into it nor change it.
//!
//! Invariant: a token opens only for the operation, account, region and filters that it was sealed for. A token is no
//! secret (its payload is readable) and does not expire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::app::AppError;
use crate::domain::names::Scope;

/// The model's bound on a token.
const MAX_TOKEN_CHARS: usize = 8192;
/// Bytes of HMAC-SHA256.
const TAG_BYTES: usize = 32;

/// Seals and opens tokens with one key.
#[derive(Clone)]
pub struct Tokens {
    key: [u8; 32],
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// A token that was changed, or sealed for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "The NextToken is not one that this operation returned for the same filters, sort and region. Repeat the request that returned it with only NextToken added, or leave NextToken out to begin again."
)]
pub struct InvalidToken;

impl From<InvalidToken> for AppError {
    fn from(error: InvalidToken) -> Self {
        Self::Validation(error.to_string())
    }
}

impl Tokens {
    /// Tokens under `key`.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// The token of a cursor. `filters` says which list it belongs to: whatever else of the request shapes the list.
    #[must_use]
    pub fn seal<C: Serialize>(&self, operation: &str, scope: &Scope, filters: &str, cursor: &C) -> String {
        // A cursor that JSON cannot hold gives a token that does not open: refused, never misread.
        let payload = serde_json::to_vec(cursor).unwrap_or_default();
        let mut token = self.tag(operation, scope, filters, &payload).to_vec();
        token.extend_from_slice(&payload);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The cursor of a token.
    pub fn open<C: DeserializeOwned>(
        &self,
        operation: &str,
        scope: &Scope,
        filters: &str,
        token: &str,
    ) -> Result<C, InvalidToken> {
        if token.len() > MAX_TOKEN_CHARS {
            return Err(InvalidToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidToken)?;
        let (tag, payload) = bytes.split_at_checked(TAG_BYTES).ok_or(InvalidToken)?;
        if !bool::from(self.tag(operation, scope, filters, payload).ct_eq(tag)) {
            return Err(InvalidToken);
        }
        serde_json::from_slice(payload).map_err(|_| InvalidToken)
    }

    fn tag(&self, operation: &str, scope: &Scope, filters: &str, payload: &[u8]) -> [u8; TAG_BYTES] {
        // HMAC pads a short key with zeros to its block; doing so here makes a key of fixed length, which cannot fail.
        let mut block = [0_u8; 64];
        block[..self.key.len()].copy_from_slice(&self.key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        for part in [operation, &scope.account, &scope.region, filters] {
            // Each part behind its length, so that no two lists of parts are the same bytes.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.update(payload);
        mac.finalize().into_bytes().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(region: &str) -> Scope {
        Scope { account: "000000000000".into(), region: region.into() }
    }

    #[test]
    fn a_token_opens_only_for_its_own_list() {
        let tokens = Tokens::new([7; 32]);
        let cursor = (String::from("name"), 17_i64);
        let token = tokens.seal("ListTags", &scope("us-east-1"), "a", &cursor);
        let open = |operation: &str, region: &str, filters: &str| {
            tokens.open::<(String, i64)>(operation, &scope(region), filters, &token)
        };
        assert_eq!(open("ListTags", "us-east-1", "a"), Ok(cursor));
        assert_eq!(open("ListTags", "us-east-1", "b"), Err(InvalidToken));
        assert_eq!(open("ListTags", "us-east-2", "a"), Err(InvalidToken));
        assert_eq!(open("ListTrainingJobs", "us-east-1", "a"), Err(InvalidToken));
        assert!(Tokens::new([8; 32]).open::<(String, i64)>("ListTags", &scope("us-east-1"), "a", &token).is_err());
    }

    #[test]
    fn no_changed_byte_opens() {
        let tokens = Tokens::new([7; 32]);
        let token = tokens.seal("ListTags", &scope("r"), "", &("x", 1));
        for at in 0..token.len() {
            for other in ['A', 'B', '_', '=', '\u{e9}'] {
                let changed: String = token.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
                if changed != token {
                    let opened = tokens.open::<(String, i64)>("ListTags", &scope("r"), "", &changed);
                    assert_eq!(opened, Err(InvalidToken), "{changed}");
                }
            }
        }
        for garbage in ["", "A", "AAAA", &"A".repeat(9000)] {
            assert_eq!(tokens.open::<(String, i64)>("ListTags", &scope("r"), "", garbage), Err(InvalidToken));
        }
    }
}
