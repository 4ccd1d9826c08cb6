//! S3 URIs as the object store meets them: the domain's reading, and its error among the store's own.

use super::ObjectsError;
use crate::domain::s3::InvalidUri;
pub(super) use crate::domain::s3::Location;

impl From<InvalidUri> for ObjectsError {
    fn from(InvalidUri { uri, why }: InvalidUri) -> Self {
        Self::InvalidUri { uri, why }
    }
}
