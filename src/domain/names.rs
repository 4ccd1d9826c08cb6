//! Names, scopes and ARNs of the service's resources.
//!
//! Invariant: a name is compared ignoring case within one account and region; `name_key` is that comparison's key.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::time::Timestamp;

/// Where a resource lives: every key in the store begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Twelve digits.
    pub account: String,
    /// Such as `us-east-1`.
    pub region: String,
}

impl Scope {
    /// The ARN of a tuning job of this scope. The service spells resource names in ARNs in lower case.
    #[must_use]
    pub fn tuning_job_arn(&self, name: &str) -> String {
        self.arn("hyper-parameter-tuning-job", name)
    }

    /// The ARN of a training job of this scope.
    #[must_use]
    pub fn training_job_arn(&self, name: &str) -> String {
        self.arn("training-job", name)
    }

    fn arn(&self, kind: &str, name: &str) -> String {
        let (region, account) = (&self.region, &self.account);
        format!("arn:aws:sagemaker:{region}:{account}:{kind}/{}", name_key(name))
    }
}

/// The key under which a name is unique: names are not case sensitive.
#[must_use]
pub fn name_key(name: &str) -> String {
    name.to_ascii_lowercase()
}

/// A new id for a row made at `now`: a version 7 UUID (RFC 9562, section 5.7). Its first bits are the time, so that rows
/// made together stand together in every index that begins with it: random ones would each dirty a page of their own.
#[must_use]
pub fn new_row_id(now: Timestamp) -> Uuid {
    let mut random = [0; 10];
    // Of a version 4 UUID only bytes 6 and 8 have bits that are not random.
    let source = Uuid::new_v4();
    random[..6].copy_from_slice(&source.as_bytes()[..6]);
    random[6..].copy_from_slice(&source.as_bytes()[12..]);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.0).unwrap_or(0), &random).into_uuid()
}

/// The name of a tuning job's `ordinal`-th training job (1-based), as the service forms it: `<tuning>-001-<8 hex>`.
///
/// The hex digits come from the tuning job's identity, so that a job deleted and created again gives other names;
/// `salt` gives a further name where one is taken all the same.
#[must_use]
pub fn training_job_name(tuning_name: &str, tuning_id: Uuid, ordinal: u32, salt: u32) -> String {
    let hex = fnv1a(&[tuning_id.as_bytes().as_slice(), &ordinal.to_le_bytes(), &salt.to_le_bytes()]);
    format!("{tuning_name}-{ordinal:03}-{:08x}", (hex ^ (hex >> 32)) & 0xffff_ffff)
}

/// FNV-1a over the concatenated parts, finished with a multiply-xorshift so that low bits mix (Fowler, Noll, Vo).
fn fnv1a(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.iter()) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// One attempt at running a training job: the identity of the folder, container or pod. Never the job's name, which
/// can be freed and taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttemptId {
    /// The training job.
    pub training_job: Uuid,
    /// 1-based.
    pub number: u32,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.training_job.simple(), self.number)
    }
}

impl std::str::FromStr for AttemptId {
    type Err = InvalidAttemptId;
    fn from_str(text: &str) -> Result<Self, InvalidAttemptId> {
        let invalid = || InvalidAttemptId(text.to_owned());
        let (job, number) = text.split_once('-').ok_or_else(invalid)?;
        let id =
            Self { training_job: job.parse().map_err(|_| invalid())?, number: number.parse().map_err(|_| invalid())? };
        // One text for one attempt: `+1` and `01` would be further names of the same folder.
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

/// A text that is not `<32 hex>-<number>`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an attempt id")]
pub struct InvalidAttemptId(pub String);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::{AttemptId, Scope, Timestamp, name_key, new_row_id, training_job_name};

    #[test]
    fn ten_thousand_children_have_different_names_of_at_most_63_characters() {
        let tuning = "a".repeat(32);
        let names: HashSet<String> =
            (1..=10_000).map(|ordinal| training_job_name(&tuning, Uuid::from_u128(7), ordinal, 0)).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() <= 63));
    }

    #[test]
    fn a_child_is_named_as_the_service_names_it() {
        let name = training_job_name("My-Job", Uuid::from_u128(7), 1, 0);
        let hex = name.strip_prefix("My-Job-001-").unwrap();
        assert!(hex.len() == 8 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{name}");
        assert!(training_job_name("j", Uuid::from_u128(7), 10_000, 0).starts_with("j-10000-"));
    }

    #[test]
    fn a_job_created_again_names_its_children_otherwise() {
        let all = |id: u128, salt| (1..=500).map(move |o| training_job_name("job", Uuid::from_u128(id), o, salt));
        let names: HashSet<String> = (0..10).flat_map(|id| all(id, 0).chain(all(id, 1))).collect();
        // Eight hex digits may meet by chance, so that a job tries again with another salt; not in these.
        assert_eq!(names.len(), 10 * 2 * 500);
        assert_eq!(
            training_job_name("job", Uuid::from_u128(1), 1, 0),
            training_job_name("job", Uuid::from_u128(1), 1, 0)
        );
    }

    #[test]
    fn arns_carry_the_name_in_lower_case() {
        let scope = Scope { account: "000000000000".to_owned(), region: "us-east-1".to_owned() };
        let arn = "arn:aws:sagemaker:us-east-1:000000000000:hyper-parameter-tuning-job/my-job";
        assert_eq!(scope.tuning_job_arn("My-Job"), arn);
        assert_eq!(scope.training_job_arn("T"), "arn:aws:sagemaker:us-east-1:000000000000:training-job/t");
        assert_eq!(name_key("My-JOB"), "my-job");
    }

    #[test]
    fn row_ids_differ_and_are_in_the_order_of_their_times() {
        let ids: Vec<Uuid> = (0..2_000).map(|at| new_row_id(Timestamp(1_000_000 + at / 10))).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.chunks(10).zip(ids.chunks(10).skip(1)).all(|(a, b)| a.iter().max() < b.iter().min()));
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn an_attempt_has_one_text() {
        let id = AttemptId { training_job: Uuid::from_u128(0xabc), number: 12 };
        let text = id.to_string();
        assert_eq!(text, "00000000000000000000000000000abc-12");
        assert_eq!(text.parse(), Ok(id));
        for other in
            ["", "-", "x-1", "../x-1", &text.to_uppercase(), &text.replace("-12", "-+12"), &text.replace("-12", "-012")]
        {
            assert!(other.parse::<AttemptId>().is_err(), "{other}");
        }
        assert!(format!("{}-1", Uuid::from_u128(5)).parse::<AttemptId>().is_err());
    }
}
