//! The object store as its callers see it, on real folders.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const ATTEMPT: AttemptId = AttemptId { training_job: Uuid::from_u128(7), number: 1 };
const TUNING_JOB: Uuid = Uuid::from_u128(8);

struct Store {
    objects: Objects,
    dir: TempDir,
}

/// A store with a mapped prefix, and a file outside both that must stay unread.
fn store() -> Store {
    let dir = TempDir::new().unwrap();
    let mapped = dir.path().join("mapped");
    write(&mapped.join("train/a.csv"), "mapped");
    write(&dir.path().join("outside/secret"), "secret");
    let objects = Objects::new(dir.path().join("root"), vec![("s3://my-bucket/data/".into(), mapped)]).unwrap();
    Store { objects, dir }
}

impl Store {
    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn put(&self, key: &str, text: &str) {
        write(&self.root().join(key), text);
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn files(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
        } else {
            found.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    found
}

fn unpacked(archive: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(archive).unwrap()));
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let describe = |mut entry: tar::Entry<'_, _>| {
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let text = match entry.header().entry_type() {
            tar::EntryType::Directory => "folder".into(),
            tar::EntryType::Symlink => format!("-> {}", entry.link_name().unwrap().unwrap().display()),
            _ => io::read_to_string(&mut entry).unwrap(),
        };
        (path, text)
    };
    entries.map(describe).collect()
}

#[tokio::test]
async fn a_folder_a_file_and_a_mapped_prefix_are_staged_in_place() {
    let s = store();
    s.put("b/train/a.csv", "a");
    let path = async |uri: &str| s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.unwrap().path;
    let root = s.root().canonicalize().unwrap();
    assert_eq!(path("s3://b/train").await, root.join("b/train"));
    assert_eq!(path("s3://b/train/").await, root.join("b/train"));
    assert_eq!(path("s3://b").await, root.join("b"));
    assert_eq!(path("s3://b/train/a.csv").await, root.join("b/train/a.csv"));
    assert_eq!(files(&path("s3://my-bucket/data/train").await)["a.csv"], "mapped");
    assert_eq!(files(&path("s3://my-bucket/data").await)["train/a.csv"], "mapped");
    for uri in ["s3://b/none", "s3://none/x", "s3://b/train/a.csv/", "s3://b/train/a.csv/x", "s3://my-bucket/other"] {
        let error = s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.unwrap_err();
        assert!(matches!(error, ObjectsError::NoInput { .. }), "{uri}: {error:?}");
    }
}

#[tokio::test]
async fn folders_without_a_file_are_no_input() {
    let s = store();
    fs::create_dir_all(s.root().join("b/train/a/b")).unwrap();
    fs::create_dir_all(s.root().join("b/train/c")).unwrap();
    for uri in ["s3://b", "s3://b/train", "s3://b/train/", "s3://b/tr"] {
        let error = s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.unwrap_err();
        assert!(matches!(&error, ObjectsError::NoInput { uri: named, .. } if named == uri), "{uri}: {error:?}");
    }
    s.put("b/train/c/d/rows.csv", "");
    for uri in ["s3://b", "s3://b/train", "s3://b/train/", "s3://b/tr"] {
        s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.unwrap();
    }
}

async fn by_manifest(s: &Store, uri: &str, tuning_job: u128) -> Result<PathBuf, ObjectsError> {
    let staged = s.objects.stage(uri, &Names::Manifest, ATTEMPT, Uuid::from_u128(tuning_job)).await;
    staged.map(|staged| staged.path)
}

#[tokio::test]
async fn a_manifest_is_read_once_and_its_objects_stand_at_their_names() {
    let s = store();
    for (key, text) in [("b/in/a.csv", "a"), ("b/in/deep/b.csv", "b"), ("b/in/c.csv", "c")] {
        s.put(key, text);
    }
    symlink("a.csv", s.root().join("b/in/link.csv")).unwrap();
    s.put("m/list", r#"[{"prefix": "s3://b/in/"}, "deep/b.csv", "a.csv", "link.csv", "a.csv"]"#);
    let staged = by_manifest(&s, "s3://m/list", 1).await.unwrap();
    let expected = [("a.csv", "a"), ("deep/b.csv", "b"), ("link.csv", "a")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(files(&staged), expected.clone().into());
    // Whatever becomes of the manifest, and also after a restart, which forgets what was gathered.
    s.put("m/list", r#"[{"prefix": "s3://b/in/"}, "c.csv"]"#);
    s.objects.forget_gathered().await.unwrap();
    assert_eq!(files(&by_manifest(&s, "s3://m/list", 1).await.unwrap()), expected.into());
    assert_eq!(files(&by_manifest(&s, "s3://m/list", 2).await.unwrap()), [("c.csv".into(), "c".into())].into());
    s.objects.unpin(Uuid::from_u128(1)).unwrap();
    assert_eq!(files(&by_manifest(&s, "s3://m/list", 1).await.unwrap()), [("c.csv".into(), "c".into())].into());
    // An object that is another by now cannot be had as it was, and what was gathered shows it: it was written over.
    s.put("b/in/c.csv", "another");
    for _ in 0..2 {
        let error = by_manifest(&s, "s3://m/list", 2).await.unwrap_err();
        assert!(matches!(&error, ObjectsError::Changed { uri } if uri == "s3://b/in/c.csv"), "{error}");
        s.objects.forget_gathered().await.unwrap();
    }
    // One that was replaced stays in what was gathered before.
    s.objects.unpin(Uuid::from_u128(2)).unwrap();
    by_manifest(&s, "s3://m/list", 2).await.unwrap();
    s.put("b/in/new", "a third");
    fs::rename(s.root().join("b/in/new"), s.root().join("b/in/c.csv")).unwrap();
    assert_eq!(files(&by_manifest(&s, "s3://m/list", 2).await.unwrap()), [("c.csv".into(), "another".into())].into());
    // What is mapped is found where it is.
    s.put("m/mapped", r#"[{"prefix": "s3://my-bucket/data/train/"}, "a.csv"]"#);
    assert_eq!(files(&by_manifest(&s, "s3://m/mapped", 3).await.unwrap())["a.csv"], "mapped");
}

#[tokio::test]
async fn a_manifest_that_names_what_it_may_not_stages_nothing() {
    let s = store();
    s.put("b/a", "a");
    s.put("b/a.d/x", "x");
    fs::create_dir_all(s.root().join("b/folder")).unwrap();
    symlink(s.dir.path().join("outside/secret"), s.root().join("b/leak")).unwrap();
    symlink(s.dir.path().join("outside"), s.root().join("b/out")).unwrap();
    nix::unistd::mkfifo(&s.root().join("b/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["none", "folder", "leak", "out/secret", "fifo", "a/below"] {
        s.put("m/list", &format!(r#"[{{"prefix": "s3://b/"}}, "a", "{name}"]"#));
        let error = by_manifest(&s, "s3://m/list", 1).await.unwrap_err();
        let named = format!("s3://b/{name}");
        assert!(matches!(&error, ObjectsError::Missing { object, .. } if *object == named), "{name}: {error}");
        assert!(!error.is_infrastructure());
    }
    for text in ["[", r#"[{"prefix": "s3://b/"}, "../outside/secret"]"#] {
        s.put("m/list", text);
        let error = by_manifest(&s, "s3://m/list", 1).await.unwrap_err();
        assert!(matches!(error, ObjectsError::Manifest { .. }) && !error.is_infrastructure(), "{error}");
    }
    for uri in ["s3://m/none", "s3://m"] {
        let error = by_manifest(&s, uri, 1).await.unwrap_err();
        assert!(matches!(error, ObjectsError::NoInput { .. } | ObjectsError::Manifest { .. }), "{uri}: {error}");
    }
    let huge = fs::File::create(s.root().join("m/huge")).unwrap();
    huge.set_len(manifest::MAX_BYTES + 1).unwrap();
    let error = by_manifest(&s, "s3://m/huge", 1).await.unwrap_err();
    assert!(matches!(error, ObjectsError::TooLarge { .. }) && !error.is_infrastructure(), "{error}");
    assert!(!s.root().join(".staged").exists() && !s.root().join(PINS).exists());
}

/// The lines of a list.
fn listed(staged: &Staged) -> Vec<String> {
    let list = staged.list.as_ref().expect("there is a list");
    fs::read_to_string(list).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_manifests_own_order_is_listed() {
    let s = store();
    for key in ["b/in/a.csv", "b/in/b.csv"] {
        s.put(key, key);
    }
    s.put("m/sorted", r#"[{"prefix": "s3://b/in/"}, "a.csv", "b.csv"]"#);
    s.put("m/own", r#"[{"prefix": "s3://b/in/"}, "b.csv", "a.csv", "b.csv"]"#);
    let stage = async |uri| s.objects.stage(uri, &Names::Manifest, ATTEMPT, TUNING_JOB).await.unwrap();
    assert_eq!(stage("s3://m/sorted").await.list, None);
    let staged = stage("s3://m/own").await;
    let own = [r#"[{"file":"b.csv"}]"#, r#"[{"file":"a.csv"}]"#, r#"[{"file":"b.csv"}]"#];
    assert_eq!((listed(&staged), files(&staged.path).len()), (own.map(str::to_owned).to_vec(), 2));
    // It is fixed as the objects are, and gone with them.
    s.put("m/own", r#"[{"prefix": "s3://b/in/"}, "a.csv", "b.csv"]"#);
    assert_eq!(stage("s3://m/own").await, staged);
    s.objects.unpin(TUNING_JOB).unwrap();
    assert_eq!(stage("s3://m/own").await.list, None);
    assert!(!staged.list.unwrap().exists());
}

#[tokio::test]
async fn an_augmented_manifest_is_its_lines_and_their_objects() {
    let s = store();
    for (key, text) in [("b/img/1.jpg", "one"), ("b/img/2.jpg", "two"), ("b/img/3.jpg", "three")] {
        s.put(key, text);
    }
    s.put("m/lines", "{\"image-ref\": \"s3://b/img/2.jpg\", \"label\": 1}\n{\"label\": {\"x\": \"ü\"}, \"image-ref\": \"s3://b/img/1.jpg\"}\n");
    let stage = async |names: &[&str]| {
        let names = Names::Augmented { attributes: names.iter().map(|name| (*name).to_owned()).collect() };
        s.objects.stage("s3://m/lines", &names, ATTEMPT, TUNING_JOB).await
    };
    let staged = stage(&["image-ref", "label"]).await.unwrap();
    let found = [("img/1.jpg", "one"), ("img/2.jpg", "two")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(files(&staged.path), found.into());
    let lines = [r#"[{"file":"img/2.jpg"},{"text":"1"}]"#, r#"[{"file":"img/1.jpg"},{"text":"{\"x\": \"ü\"}"}]"#];
    assert_eq!(listed(&staged), lines);
    // Other attributes are another channel; no object among them is none.
    let labels = stage(&["label"]).await.unwrap();
    assert_eq!(listed(&labels)[0], r#"[{"text":"1"}]"#);
    assert!(labels.path.is_dir() && files(&labels.path).is_empty());
    let error = stage(&["none"]).await.unwrap_err().to_string();
    assert!(error.contains("s3://m/lines") && error.contains("line 1: it has no attribute none"), "{error}");
    s.put("m/lines", "{\"image-ref\": \"s3://b/img/9.jpg\"}");
    assert_eq!(listed(&stage(&["image-ref", "label"]).await.unwrap()), lines, "it is read once");
    let error = stage(&["image-ref"]).await.unwrap_err();
    assert!(matches!(&error, ObjectsError::Missing { object, .. } if object == "s3://b/img/9.jpg"), "{error}");
}

#[tokio::test]
async fn a_prefix_that_is_no_folder_gathers_what_begins_with_it() {
    let s = store();
    for (key, text) in [("b/in/train-1.csv", "1"), ("b/in/train-2/x.csv", "2"), ("b/in/test.csv", "3")] {
        s.put(key, text);
    }
    symlink("/etc/passwd", s.root().join("b/in/train-link")).unwrap();
    let stage = async |uri: &str| s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.unwrap().path;
    let staged = stage("s3://b/in/train").await;
    assert_eq!(
        files(&staged),
        [("train-1.csv", "1"), ("train-2/x.csv", "2")].map(|(k, v)| (k.into(), v.into())).into()
    );
    assert_eq!(stage("s3://b/in/train").await, staged, "the same objects are gathered once");
    s.put("b/in/train-3.csv", "3");
    assert_eq!(files(&stage("s3://b/in/train").await).len(), 3);
    assert_eq!(files(&stage("s3://b/in/train-2").await).len(), 1);
}

#[tokio::test]
async fn nothing_outside_is_reached() {
    let s = store();
    s.put("b/x", "x");
    let outside = s.dir.path().join("outside");
    symlink(&outside, s.root().join("b/link")).unwrap();
    symlink("../../outside/secret", s.root().join("b/secret")).unwrap();
    for uri in ["s3://b/link", "s3://b/link/secret", "s3://b/secret"] {
        assert!(s.objects.stage(uri, &Names::Prefix, ATTEMPT, TUNING_JOB).await.is_err(), "{uri}");
    }
    let from = s.dir.path().join("from");
    write(&from.join("f"), "f");
    for uri in ["s3://b/link/new", "s3://b/../new", "s3://..", "s3://b/link"] {
        for result in [
            s.objects.put_tar_gz(&from, uri, CancellationToken::new()).await,
            s.objects.put_tree(&from, uri, CancellationToken::new()).await,
        ] {
            // A link at the object's own place may be replaced, never followed.
            assert!(result.is_err() || uri == "s3://b/link", "{uri}");
        }
        let _ = s.objects.checkpoints(uri, ATTEMPT).await;
    }
    assert_eq!(files(&outside), [("secret".to_owned(), "secret".to_owned())].into());
    assert!(!s.dir.path().join("new").exists());
}

#[tokio::test]
async fn an_archive_holds_files_folders_and_links_within() {
    let s = store();
    let model = s.dir.path().join("model");
    write(&model.join("b/weights.bin"), "w");
    write(&model.join("a.json"), "{}");
    write(&model.join("x".repeat(200)).join("y".repeat(200)), "long");
    symlink("b/weights.bin", model.join("latest")).unwrap();
    symlink("/etc/passwd", model.join("absolute")).unwrap();
    symlink("../../outside/secret", model.join("b/escape")).unwrap();
    symlink("../../outside", model.join("b/folder")).unwrap();
    nix::unistd::mkfifo(&model.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    s.objects.put_tar_gz(&model, "s3://out/job/output/model.tar.gz", CancellationToken::new()).await.unwrap();

    let archive = s.root().join("out/job/output/model.tar.gz");
    let long = format!("{}/", "x".repeat(200));
    let long_file = format!("{long}{}", "y".repeat(200));
    let expected = [
        ("a.json", "{}"),
        ("b/", "folder"),
        ("b/weights.bin", "w"),
        ("latest", "-> b/weights.bin"),
        (&long, "folder"),
        (&long_file, "long"),
    ];
    let entries = unpacked(&archive);
    let seen: Vec<_> = entries.iter().map(|(path, text)| (path.trim_end_matches('/'), text.as_str())).collect();
    assert_eq!(seen, expected.map(|(path, text)| (path.trim_end_matches('/'), text)));

    let before = fs::read(&archive).unwrap();
    s.objects.put_tar_gz(&model, "s3://out/job/output/model.tar.gz", CancellationToken::new()).await.unwrap();
    assert_eq!(fs::read(&archive).unwrap(), before, "the same folder gives the same bytes");
    assert_eq!(fs::read_dir(archive.parent().unwrap()).unwrap().count(), 1, "nothing unfinished is left");
}

#[tokio::test]
async fn a_tree_is_copied_without_links() {
    let s = store();
    let model = s.dir.path().join("model");
    write(&model.join("b/weights.bin"), "w");
    write(&model.join("a.json"), "{}");
    symlink("/etc", model.join("etc")).unwrap();
    s.objects.put_tree(&model, "s3://my-bucket/data/out/", CancellationToken::new()).await.unwrap();
    let copied = files(&s.dir.path().join("mapped/out"));
    assert_eq!(copied, [("a.json", "{}"), ("b/weights.bin", "w")].map(|(k, v)| (k.into(), v.into())).into());
}

#[tokio::test]
async fn an_object_is_not_written_in_place_of_a_folder() {
    let s = store();
    s.put("b/folder/x", "x");
    let from = s.dir.path().join("mapped");
    assert!(s.objects.put_tar_gz(&from, "s3://b/folder", CancellationToken::new()).await.is_err());
    assert!(s.objects.put_tar_gz(&from, "s3://b", CancellationToken::new()).await.is_err());
    assert!(s.objects.put_tar_gz(&from, "s3://b/folder/x/y", CancellationToken::new()).await.is_err());
    assert_eq!(files(&s.root().join("b")), [("folder/x".to_owned(), "x".to_owned())].into());
}

#[tokio::test]
async fn a_checkpoint_folder_is_made_and_kept() {
    let s = store();
    let folder = s.objects.checkpoints("s3://ckpt/job/1", ATTEMPT).await.unwrap();
    fs::write(folder.join("epoch"), "3").unwrap();
    assert_eq!(s.objects.checkpoints("s3://ckpt/job/1/", ATTEMPT).await.unwrap(), folder);
    assert_eq!(files(&folder)["epoch"], "3");
}

#[tokio::test]
async fn logs_are_kept_out_of_every_bucket() {
    let s = store();
    let attempt = AttemptId { training_job: uuid::Uuid::new_v4(), number: 1 };
    let file = s.dir.path().join("log-0");
    write(&file, "0123456789");
    let key = s.objects.keep_log(attempt, 0, &file).await.unwrap();
    assert_eq!(s.objects.keep_log(attempt, 0, &file).await.unwrap(), key, "again is harmless");
    fs::remove_file(&file).unwrap();
    let remark = s.objects.keep_log_bytes(attempt, 10, b"a remark").await.unwrap();
    assert_eq!(s.objects.read_log(&remark, 2, 100).await.unwrap(), b"remark");
    assert_eq!(s.objects.read_log(&key, 3, 4).await.unwrap(), b"3456");
    assert_eq!(s.objects.read_log(&key, 99, 4).await.unwrap(), b"");
    assert!(s.objects.stage("s3://.logs", &Names::Prefix, ATTEMPT, TUNING_JOB).await.is_err());
    for key in ["", "../x", &format!("{attempt}/../x"), &format!("{attempt}/5"), "/etc/passwd"] {
        assert!(matches!(s.objects.read_log(key, 0, 1).await, Err(ObjectsError::NotFound { .. })), "{key}");
    }
    s.objects.remove_log(attempt).await.unwrap();
    s.objects.remove_log(attempt).await.unwrap();
    assert!(s.objects.read_log(&key, 0, 1).await.is_err());
    assert!(s.objects.keep_log(attempt, 7, &file).await.is_err(), "a log that never was is an error");
}

#[test]
fn a_mapped_folder_must_exist() {
    let dir = TempDir::new().unwrap();
    let error = Objects::new(dir.path().join("root"), vec![("s3://b".into(), dir.path().join("none"))]).unwrap_err();
    assert!(error.to_string().contains("mapped as s3://b"), "{error}");
}

/// Folders within folders.
fn deep(top: &Path, levels: usize) {
    fs::create_dir_all(top.join("d/".repeat(levels))).unwrap();
}

#[tokio::test]
async fn folders_that_are_too_deep_are_the_jobs_fault() {
    let s = store();
    let model = s.dir.path().join("model");
    deep(&model, 1500);
    let uri = "s3://out/model";
    for result in [
        s.objects.put_tar_gz(&model, uri, CancellationToken::new()).await,
        s.objects.put_tree(&model, uri, CancellationToken::new()).await,
    ] {
        assert!(matches!(&result, Err(ObjectsError::Unpackable { .. })), "{result:?}");
    }
    deep(&s.root().join("b/train-x"), 1500);
    let staged = s.objects.stage("s3://b/train", &Names::Prefix, ATTEMPT, TUNING_JOB).await;
    assert!(matches!(&staged, Err(ObjectsError::Unpackable { .. })), "{staged:?}");
}

#[tokio::test]
async fn an_artifact_has_a_largest_size_and_can_be_given_up() {
    let mut s = store();
    let model = s.dir.path().join("model");
    write(&model.join("small"), "x");
    s.objects = s.objects.with_artifact_limits(1 << 40, 1_000_000);
    let given_up = CancellationToken::new();
    given_up.cancel();
    let uri = "s3://out/model";
    for result in
        [s.objects.put_tar_gz(&model, uri, given_up.clone()).await, s.objects.put_tree(&model, uri, given_up).await]
    {
        assert!(matches!(&result, Err(ObjectsError::Cancelled { .. })), "{result:?}");
    }
    // All hole: no disk is filled, and reading it would take hours.
    fs::File::create(model.join("sparse")).unwrap().set_len(8 << 40).unwrap();
    for result in [
        s.objects.put_tar_gz(&model, uri, CancellationToken::new()).await,
        s.objects.put_tree(&model, uri, CancellationToken::new()).await,
    ] {
        assert!(matches!(&result, Err(ObjectsError::TooLarge { .. })), "{result:?}");
    }
    assert!(!s.root().join("out/model").exists());
    assert_eq!(fs::read_dir(s.root().join(".unfinished")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_artifact_has_a_most_of_files() {
    let mut s = store();
    s.objects = s.objects.with_artifact_limits(1 << 40, 3);
    let (model, uri) = (s.dir.path().join("model"), "s3://out/model");
    for name in ["a", "b/c"] {
        write(&model.join(name), "x");
    }
    s.objects.put_tar_gz(&model, uri, CancellationToken::new()).await.unwrap();
    write(&model.join("d"), "x");
    let error = s.objects.put_tar_gz(&model, uri, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("more than 3 files"), "{error}");
}

#[tokio::test]
async fn what_a_crash_left_is_swept() {
    let s = store();
    for unfinished in [".unfinished/.tunesmith-1", ".staged/.tunesmith-2/train-1.csv", ".staged/whole/train-1.csv"] {
        s.put(unfinished, "half");
    }
    let again = Objects::new(s.root(), vec![]).unwrap();
    assert!(!s.root().join(".unfinished/.tunesmith-1").exists() && !s.root().join(".staged/.tunesmith-2").exists());
    assert!(s.root().join(".staged/whole/train-1.csv").exists(), "an attempt may still read it");
    again.forget_gathered().await.unwrap();
    again.forget_gathered().await.unwrap();
    assert!(!s.root().join(".staged").exists());
}

#[tokio::test]
async fn missing_input_is_told_in_the_services_words_with_the_place() {
    let s = store();
    let error = s
        .objects
        .stage("s3://my-bucket/data/none/", &Names::Prefix, ATTEMPT, TUNING_JOB)
        .await
        .unwrap_err()
        .to_string();
    let begins = "No S3 objects found under S3 URL \"s3://my-bucket/data/none/\" given in input data source.";
    assert!(error.starts_with(begins), "{error}");
    assert!(error.contains(s.dir.path().canonicalize().unwrap().join("mapped/none").to_str().unwrap()), "{error}");
}
