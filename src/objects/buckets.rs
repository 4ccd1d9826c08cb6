//! Buckets in S3, or in a store that speaks its protocol.
//!
//! Invariant: only buckets of the configuration are reached, at their configured endpoint and with their configured
//! credentials; nothing that a request says names a host. Retries, signing and the credentials chain are `object_store`'s;
//! where fetched objects are kept is in `fetched`.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path as Key;
use object_store::{ClientOptions, GetOptions, ObjectStore as _, ObjectStoreExt as _, RetryConfig, WriteMultipart};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::ObjectsError;
use super::listing::{MAX_OBJECTS, Object};
use crate::config::Bucket;

/// The name of the entry that stands for every bucket without one.
const ANY: &str = "*";

/// A part of an upload; the store takes 10,000 of them, and each is in memory.
const PART_BYTES: usize = 16 << 20;

/// Parts of one upload that are under way at once.
const PARTS_AT_ONCE: usize = 3;

/// Objects that are looked up at once.
const LOOKS_AT_ONCE: usize = 32;

/// How long a store that fails is tried again, in all.
const RETRY_FOR: Duration = Duration::from_mins(1);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a store may be silent in the middle of a request.
const READ_TIMEOUT: Duration = Duration::from_mins(1);

/// How long one request may take: a large object comes as one.
const REQUEST_TIMEOUT: Duration = Duration::from_hours(6);

/// The configured buckets and their clients, made when first asked for.
pub(super) struct Buckets {
    entries: Vec<Bucket>,
    default_region: String,
    clients: Mutex<HashMap<String, Arc<AmazonS3>>>,
}

impl fmt::Debug for Buckets {
    /// Without the clients, which hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buckets").field("entries", &self.entries).finish_non_exhaustive()
    }
}

/// One bucket.
#[derive(Clone)]
pub(super) struct Remote {
    client: Arc<AmazonS3>,
    /// The bucket's endpoint and name: what tells its objects from those of another place.
    pub(super) identity: String,
    name: String,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(entries: Vec<Bucket>, default_region: &str) -> Self {
        // TLS takes the process' provider of cryptography; a second try to set it changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { entries, default_region: default_region.to_owned(), clients: Mutex::default() }
    }

    /// The bucket of a name, where it is one of these; the directory tree has all others.
    pub(super) fn find(&self, name: &str) -> Result<Option<Remote>, ObjectsError> {
        let named = |wanted: &str| self.entries.iter().find(|entry| entry.name == wanted);
        let Some(entry) = named(name).or_else(|| named(ANY)) else { return Ok(None) };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = if let Some(client) = clients.get(name) {
            Arc::clone(client)
        } else {
            let client = self.client(entry, name).map_err(failed(|| format!("opening the bucket {name}")))?;
            let client = Arc::new(client);
            clients.insert(name.to_owned(), Arc::clone(&client));
            client
        };
        Ok(Some(Remote { client, identity: format!("{}/{name}", entry.endpoint), name: name.to_owned() }))
    }

    fn client(&self, entry: &Bucket, name: &str) -> Result<AmazonS3, object_store::Error> {
        let region = if entry.region.is_empty() { &self.default_region } else { &entry.region };
        let own_credentials = !entry.access_key_id.is_empty();
        let mut builder = if own_credentials {
            AmazonS3Builder::new()
                .with_access_key_id(&entry.access_key_id)
                .with_secret_access_key(entry.secret_access_key.expose())
        } else {
            AmazonS3Builder::from_env()
        };
        if !entry.endpoint.is_empty() {
            builder = builder.with_endpoint(entry.endpoint.trim_end_matches('/'));
        }
        let path_style = entry.path_style.unwrap_or(!entry.endpoint.is_empty());
        let http = entry.endpoint.starts_with("http://");
        let retry = RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_read_timeout(READ_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT)
            .with_allow_http(http);
        builder
            .with_bucket_name(name)
            .with_region(region)
            .with_virtual_hosted_style_request(!path_style)
            .with_retry(retry)
            .with_client_options(options)
            .build()
    }
}

impl Remote {
    /// Every object whose key begins with `prefix`, in the order of the keys; more than `MAX_OBJECTS` are refused. What
    /// consoles make for a folder, an empty object whose key ends with `/`, is none where the folder has objects.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Object>, ObjectsError> {
        let doing = || format!("listing s3://{}/{prefix}", self.name);
        let (mut objects, mut page_token) = (Vec::new(), None);
        loop {
            let options = PaginatedListOptions { page_token, ..PaginatedListOptions::default() };
            let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
            let page = self.client.list_paginated(prefix, options).await.map_err(failed(doing))?;
            objects.extend(page.result.objects.into_iter().map(object));
            if objects.len() > MAX_OBJECTS {
                let why = format!("it holds more than {MAX_OBJECTS} objects");
                return Err(ObjectsError::Unpackable { doing: doing(), why });
            }
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(without_folders(objects))
    }

    /// The objects of these keys; the first that is not there is the error's.
    pub(super) async fn look_up(&self, keys: Vec<String>) -> Result<Result<Vec<Object>, String>, ObjectsError> {
        let (mut objects, remote) = (Vec::with_capacity(keys.len()), self.clone());
        let looks = keys.into_iter().map(move |name| remote.clone().look(name));
        let mut looks = futures_util::stream::iter(looks).buffered(LOOKS_AT_ONCE);
        while let Some(look) = looks.next().await {
            match look? {
                Ok(object) => objects.push(object),
                Err(missing) => return Ok(Err(missing)),
            }
        }
        Ok(Ok(objects))
    }

    /// One object; the key where it is not there.
    async fn look(self, name: String) -> Result<Result<Object, String>, ObjectsError> {
        let doing = || format!("looking up s3://{}/{name}", self.name);
        match self.client.head(&key(&name).map_err(failed(doing))?).await {
            Ok(meta) => Ok(Ok(object(meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(Err(name)),
            Err(error) => Err(failed(doing)(error)),
        }
    }

    /// A small object's bytes; none where it is not there. An object of more than `max_bytes` is refused.
    pub(super) async fn read(&self, name: &str, max_bytes: u64) -> Result<Option<Bytes>, ObjectsError> {
        let doing = || format!("reading s3://{}/{name}", self.name);
        let found = match self.client.get(&key(name).map_err(failed(doing))?).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            other => other.map_err(failed(doing))?,
        };
        if found.meta.size > max_bytes {
            return Err(ObjectsError::Unpackable {
                doing: doing(),
                why: format!("it is larger than {max_bytes} bytes"),
            });
        }
        found.bytes().await.map(Some).map_err(failed(doing))
    }

    /// Writes an object to a new file, durably; no file where the object was only a console's folder. What is no longer as
    /// it was listed is an error.
    pub(super) async fn fetch(&self, object: &Object, file: &Path) -> Result<bool, ObjectsError> {
        let doing = || format!("fetching s3://{}/{}", self.name, object.key);
        let key = key(&object.key).map_err(failed(doing))?;
        let options = GetOptions { if_match: object.etag.clone(), ..GetOptions::default() };
        let found = match self.client.get_opts(&key, options).await {
            // The library lists `a/` as `a`.
            Err(object_store::Error::NotFound { .. }) if object.bytes == 0 => return Ok(false),
            Err(object_store::Error::Precondition { .. }) => return Err(self.changed(object)),
            other => other.map_err(failed(doing))?,
        };
        let mut chunks = found.into_stream();
        let unwritable = super::tree::failed(doing);
        let mut written = 0;
        let writing = async {
            let mut out = tokio::fs::File::create_new(file).await?;
            while let Some(chunk) = chunks.next().await {
                let chunk = match chunk {
                    Ok(chunk) => chunk,
                    Err(error) => return Ok(Some(error)),
                };
                written += chunk.len() as u64;
                out.write_all(&chunk).await?;
            }
            out.flush().await?;
            out.sync_data().await?;
            Ok(None)
        };
        match writing.await {
            Ok(None) if written == object.bytes => Ok(true),
            Ok(None) => Err(self.changed(object)),
            Ok(Some(error)) => Err(failed(doing)(error)),
            Err(error) => Err(unwritable(error)),
        }
    }

    fn changed(&self, object: &Object) -> ObjectsError {
        ObjectsError::Changed { uri: format!("s3://{}/{}", self.name, object.key) }
    }

    /// Writes a file's first `bytes` bytes to an object: in one request, or in parts. Given up, it leaves no object.
    pub(super) async fn upload(
        &self,
        name: &str,
        file: std::fs::File,
        bytes: u64,
        cancelled: &CancellationToken,
    ) -> Result<(), ObjectsError> {
        let doing = || format!("writing s3://{}/{name}", self.name);
        let key = key(name).map_err(failed(doing))?;
        let mut file = tokio::fs::File::from_std(file).take(bytes);
        if bytes <= PART_BYTES as u64 {
            let part = next_part(&mut file).await.map_err(super::tree::failed(doing))?;
            return tokio::select! {
                put = self.client.put(&key, part.into()) => put.map(|_| ()).map_err(failed(doing)),
                () = cancelled.cancelled() => Err(ObjectsError::Cancelled { doing: doing() }),
            };
        }
        let parts = self.client.put_multipart(&key).await.map_err(failed(doing))?;
        let mut upload = WriteMultipart::new_with_chunk_size(parts, PART_BYTES);
        let sending = async {
            loop {
                let part = next_part(&mut file).await.map_err(super::tree::failed(doing))?;
                if part.is_empty() {
                    return Ok(());
                }
                upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed(doing))?;
                upload.put(part);
            }
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = cancelled.cancelled() => Err(ObjectsError::Cancelled { doing: doing() }),
        };
        match sent {
            Ok(()) => upload.finish().await.map(|_| ()).map_err(failed(doing)),
            Err(error) => {
                // What the store keeps of the parts, its lifecycle rules remove at the latest.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

/// Objects in the order of their keys, without empty ones that stand for the folders of others.
fn without_folders(mut objects: Vec<Object>) -> Vec<Object> {
    let has_more = |folder: &Object| {
        let beneath = format!("{}/", folder.key);
        let next = objects.partition_point(|object| object.key < beneath);
        objects.get(next).is_some_and(|object| object.key.starts_with(&beneath))
    };
    let keep: Vec<bool> = objects.iter().map(|object| object.bytes > 0 || !has_more(object)).collect();
    let mut keep = keep.into_iter();
    objects.retain(|_| keep.next().unwrap_or(true));
    objects
}

/// The next part of a file, of the full size but for the last.
async fn next_part(file: &mut tokio::io::Take<tokio::fs::File>) -> std::io::Result<Bytes> {
    let room = usize::try_from(file.limit()).unwrap_or(PART_BYTES).min(PART_BYTES);
    let mut part = Vec::with_capacity(room);
    while part.len() < PART_BYTES && file.read_buf(&mut part).await? > 0 {}
    Ok(part.into())
}

fn object(meta: object_store::ObjectMeta) -> Object {
    Object {
        key: meta.location.to_string(),
        bytes: meta.size,
        etag: meta.e_tag,
        modified: meta.last_modified.to_rfc3339(),
    }
}

/// A key as it is; the store would otherwise escape what it finds unusual.
fn key(name: &str) -> Result<Key, object_store::Error> {
    Key::parse(name).map_err(Into::into)
}

/// A store's error as the caller's.
fn failed(doing: impl FnOnce() -> String) -> impl FnOnce(object_store::Error) -> ObjectsError {
    |source| ObjectsError::Remote { doing: doing(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_folder_is_no_object() {
        let object = |(key, bytes): (&str, u64)| Object { key: key.into(), bytes, etag: None, modified: String::new() };
        let listed = [("a", 0), ("a.b", 0), ("a/x", 1), ("b", 0), ("c", 1), ("c/d", 1)].map(object);
        let left: Vec<String> = without_folders(listed.into()).into_iter().map(|object| object.key).collect();
        assert_eq!(left, ["a.b", "a/x", "b", "c", "c/d"]);
    }
}
