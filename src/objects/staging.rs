//! From what a channel's URI names to its data on this machine.
//!
//! Invariant: what is remote, and what a manifest names, is looked up for a tuning job's first training job only; all
//! others find what that found. Where the data comes from and how it is kept is for `tree` and `fetched` to know.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use uuid::Uuid;

use super::buckets::Remote;
use super::listing::Listing;
use super::tree::{Tree, failed};
use super::uri::Location;
use super::{Objects, ObjectsError, augmented, listing, manifest, object_key};
use crate::domain::names::AttemptId;

/// What an input URI names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// `S3Prefix`: all objects whose keys begin with its key.
    Prefix,
    /// `ManifestFile`: an object that lists others.
    Manifest,
    /// `AugmentedManifestFile`: an object with a JSON document on each line, and the members of those that count.
    Augmented {
        /// `AttributeNames`.
        attributes: Vec<String>,
    },
}

/// A channel's data on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// A folder, or a single file.
    pub path: PathBuf,
    /// A file that lists what is streamed, an item on each line (see [`crate::domain::pipe::Piece`]); none for each file
    /// in the order of the keys.
    pub list: Option<PathBuf>,
    /// A folder for each bucket, by its name, where the list names objects of several, each by its bucket and its key.
    pub buckets: BTreeMap<String, PathBuf>,
}

impl From<PathBuf> for Staged {
    /// All that stands at a path.
    fn from(path: PathBuf) -> Self {
        Self { path, list: None, buckets: BTreeMap::new() }
    }
}

impl Objects {
    /// A local path with all objects that a URI names: a folder, or a single file.
    ///
    /// A prefix that names a folder or a file is that; any other is a folder with the objects that begin with it. A
    /// prefix without a single object is [`ObjectsError::NoInput`], empty folders or not. Of a manifest it is a folder
    /// with the objects at their names in it, of an augmented one with the objects at their keys, and the list says what
    /// is streamed. Of a remote bucket or by a manifest it is what the tuning job found there the first time; a copy of
    /// what is remote is the attempt's until [`Objects::release`], the list is there until [`Objects::unpin`].
    pub async fn stage(
        &self,
        uri: &str,
        names: &Names,
        attempt: AttemptId,
        tuning_job: Uuid,
    ) -> Result<Staged, ObjectsError> {
        let location = Location::parse(uri)?;
        let remote = self.remote(&location)?.map(|(remote, _)| remote);
        if *names == Names::Prefix && remote.is_none() {
            let place = self.tree.place(&location);
            let staged = self.blocking(format!("staging {uri}"), move |tree| tree.stage(&location)).await?;
            let path = staged.ok_or_else(|| ObjectsError::NoInput { uri: uri.to_owned(), place })?;
            return Ok(path.into());
        }
        let channel = format!("{names:?}\0{}\0{uri}", remote.as_ref().map_or("", |remote| &remote.identity));
        let turn = self.pins.turn(tuning_job);
        let one_at_a_time = turn.lock().await;
        let listing = if let Some(listing) = self.pins.find(tuning_job, &channel).await? {
            listing
        } else {
            let (listing, list) = self.look(uri, names, &location, remote.as_ref()).await?;
            self.pins.fix(tuning_job, &channel, listing, list).await?
        };
        drop(one_at_a_time);
        let list = self.pins.list(tuning_job, &listing);
        let mut listing = listing;
        let (others, first) = (std::mem::take(&mut listing.others), listing.bucket.clone());
        let path = self.stage_listed(listing, attempt).await?;
        let mut buckets = BTreeMap::new();
        for other in others {
            buckets.insert(other.bucket.clone(), self.stage_listed(other, attempt).await?);
        }
        if !buckets.is_empty() {
            buckets.insert(first, path.clone());
        }
        Ok(Staged { path, list, buckets })
    }

    /// What a URI names now, and the lines of the list of what is streamed of it, where there is one.
    async fn look(
        &self,
        uri: &str,
        names: &Names,
        location: &Location,
        remote: Option<&Remote>,
    ) -> Result<(Listing, Option<Vec<u8>>), ObjectsError> {
        match (names, remote) {
            (Names::Prefix, Some(remote)) => {
                let listing = Listing::of_prefix(remote, location).await?;
                Ok((listing.ok_or_else(|| ObjectsError::NoRemoteInput { uri: uri.to_owned() })?, None))
            }
            (Names::Augmented { attributes }, _) => {
                let text = self.manifest(uri, location, remote).await?;
                let (of, attributes) = (uri.to_owned(), attributes.clone());
                let parsing = tokio::task::spawn_blocking(move || augmented::parse(&of, &text, &attributes));
                let parsed =
                    parsing.await.map_err(|error| failed(|| format!("reading {uri}"))(io::Error::other(error)))?;
                let augmented::Augmented { mut objects, lines } = parsed?;
                // Without a single object it is a folder with nothing in it.
                let first = objects.pop_first().unwrap_or_else(|| (location.bucket.clone(), BTreeSet::new()));
                let placed = |keys: BTreeSet<String>| keys.into_iter().map(|key| (key.clone(), key)).collect();
                let mut listing = self.named(uri, first.0, placed(first.1)).await?;
                for (bucket, keys) in objects {
                    listing.others.push(self.named(uri, bucket, placed(keys)).await?);
                }
                Ok((listing, Some(lines)))
            }
            _ => {
                let text = self.manifest(uri, location, remote).await?;
                let manifest::Manifest { bucket, named } = manifest::parse(uri, &text)?;
                let lines = manifest::lines(&named);
                Ok((self.named(uri, bucket, named).await?, lines))
            }
        }
    }

    /// A manifest's text.
    async fn manifest(&self, uri: &str, location: &Location, remote: Option<&Remote>) -> Result<Bytes, ObjectsError> {
        if location.is_folder {
            let why = "it is a folder's URI. Name the manifest itself".to_owned();
            return Err(ObjectsError::Manifest { uri: uri.to_owned(), why });
        }
        if let Some(remote) = remote {
            let text = remote.read(&object_key(location, Path::new("."))?, manifest::MAX_BYTES).await?;
            return text.ok_or_else(|| ObjectsError::NoRemoteInput { uri: uri.to_owned() });
        }
        let (place, location) = (self.tree.place(location), location.clone());
        let reading = move |tree: &Tree| tree.read(&location, manifest::MAX_BYTES);
        let text = self.blocking(format!("reading {uri}"), reading).await?;
        Ok(text.ok_or_else(|| ObjectsError::NoInput { uri: uri.to_owned(), place })?.into())
    }

    /// What a manifest names, by path and key, looked up where that is.
    async fn named(&self, uri: &str, bucket: String, named: Vec<(String, String)>) -> Result<Listing, ObjectsError> {
        let (paths, keys): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let found = if let Some((remote, _)) = self.remote_bucket(&bucket)? {
            remote.look_up(keys).await?
        } else {
            let of = bucket.clone();
            self.blocking(format!("looking up what {uri} names"), move |tree| tree.look_up(&of, &keys)).await?
        };
        let objects = found.map_err(|missing| ObjectsError::Missing {
            manifest: uri.to_owned(),
            object: format!("s3://{bucket}/{missing}"),
        })?;
        let files = listing::placed(paths.into_iter().zip(objects).collect())?;
        Ok(Listing { bucket, files, single: false, list: None, others: Vec::new() })
    }

    async fn stage_listed(&self, listing: Listing, attempt: AttemptId) -> Result<PathBuf, ObjectsError> {
        if let Some((remote, fetched)) = self.remote_bucket(&listing.bucket)? {
            return fetched.stage(&remote, &listing, attempt).await;
        }
        let bucket = listing.bucket.clone();
        let staging = self.blocking("gathering a channel".to_owned(), move |tree| tree.stage_listed(&listing));
        staging.await?.map_err(|changed| ObjectsError::Changed { uri: format!("s3://{bucket}/{changed}") })
    }
}
