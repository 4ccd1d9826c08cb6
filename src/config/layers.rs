//! Putting the layers of settings together and telling where each value came from.
//!
//! Invariant: a value is checked as soon as its layer is added, so that a complaint names the file and line, the
//! variable or the flag that has to change.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Bucket, DatabaseUrl, FileSystem, Settings};

const PREFIX: &str = "TUNESMITH_";
/// A larger number of GiB is no number of bytes.
const MAX_GIB: u64 = u64::MAX >> 30;
const CONFIG_VARIABLE: &str = "TUNESMITH_CONFIG";

/// Why settings cannot be used. The text names what to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} can't be read")]
    Read {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}, line {line}: {why}")]
    File {
        /// As given.
        path: PathBuf,
        /// 1-based.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// A variable that looks like a setting and is none.
    #[error("{name} is not a setting; the variables are {known}")]
    UnknownVariable {
        /// The variable.
        name: String,
        /// All of them.
        known: String,
    },
    /// A variable with an unusable value.
    #[error("the variable {name} can't be used: {why}")]
    Variable {
        /// The variable.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A value that breaks a rule.
    #[error("{key} (from {from}) can't be used: {why}")]
    Invalid {
        /// The setting.
        key: String,
        /// Where its value came from.
        from: Source,
        /// What is wrong and what to write instead.
        why: String,
    },
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Environment variables, as a value, so that tests need not touch the process' own.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// This process' environment.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The value of a variable, where it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`.
    pub listen: Option<std::net::SocketAddr>,
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--database-url`.
    pub database_url: Option<DatabaseUrl>,
}

/// Settings in force, and where each came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings, complete: computed defaults are filled in.
    pub settings: Settings,
    /// The file that was read.
    pub file: Option<PathBuf>,
    sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// Reads all layers.
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Self, ConfigError> {
        let mut layers = Layers::default();
        let file = flags.config.clone().or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
        if let Some(path) = &file {
            layers.add_file(path)?;
        }
        layers.add_environment(environment)?;
        layers.add_flags(flags);
        let Layers { mut settings, sources } = layers;
        fill_in(&mut settings, environment);
        let loaded = Self { settings, file, sources };
        loaded.check()?;
        Ok(loaded)
    }

    /// Where a setting's value came from; `key` as in the file, with dots.
    #[must_use]
    pub fn source(&self, key: &str) -> Source {
        self.sources.get(key).cloned().unwrap_or(Source::Default)
    }

    /// Every setting as `key = value`, with its source; no password.
    #[must_use]
    pub fn lines(&self) -> Vec<(String, Source)> {
        let Ok(mut table) = Table::try_from(&self.settings) else { return Vec::new() };
        table.insert("database_url".to_owned(), Value::String(self.settings.database_url.redacted()));
        let line = |(key, value): (String, Value)| (format!("{key} = {value}"), self.source(&key));
        leaves(&table).into_iter().map(line).collect()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let settings = &self.settings;
        let invalid = |key: &str, why: &str| ConfigError::Invalid {
            key: key.to_owned(),
            from: self.source(key),
            why: why.to_owned(),
        };
        if settings.account.len() != 12 || !settings.account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid("account", "an account is twelve digits"));
        }
        let region_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if settings.region.is_empty() || settings.region.len() > 32 || !settings.region.bytes().all(region_ok) {
            return Err(invalid("region", "a region is 1 to 32 of a-z, 0-9 and `-`, such as us-east-1"));
        }
        let url = settings.database_url.expose();
        if !["sqlite://", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(invalid("database_url", "it begins with sqlite:// or postgres://"));
        }
        if settings.process.log_cap_mib == 0 {
            return Err(invalid("process.log_cap_mib", "at least 1 MiB of log has to be kept"));
        }
        if settings.docker.log_cap_mib == 0 {
            return Err(invalid("docker.log_cap_mib", "at least 1 MiB of log has to be kept"));
        }
        if !["unix://", "tcp://", "http://"].iter().any(|scheme| settings.docker.address.starts_with(scheme)) {
            return Err(invalid("docker.address", "it begins with unix:// or tcp://"));
        }
        if settings.artifacts.max_gib == 0 {
            return Err(invalid("artifacts.max_gib", "at least 1 GiB has to be taken"));
        }
        if settings.artifacts.max_files == 0 {
            return Err(invalid("artifacts.max_files", "at least one file has to be taken"));
        }
        let sizes = [
            ("artifacts.max_gib", settings.artifacts.max_gib),
            ("process.max_disk_gib", settings.process.max_disk_gib),
            ("docker.max_disk_gib", settings.docker.max_disk_gib),
        ];
        if let Some((key, _)) = sizes.into_iter().find(|(_, gib)| *gib > MAX_GIB) {
            return Err(invalid(key, &format!("no disk is larger than {MAX_GIB} GiB")));
        }
        let one_of = |image: &&super::Image| image.command.is_empty() == image.docker_image.is_empty();
        if let Some(image) = settings.images.iter().find(one_of) {
            let why = format!("the image {} needs either a command or a docker_image", image.name);
            return Err(invalid("images", &why));
        }
        let mut names = BTreeSet::new();
        if let Some(image) = settings.images.iter().find(|image| image.name.is_empty() || !names.insert(&image.name)) {
            let why = format!("the name {:?} is empty or stands twice", image.name);
            return Err(invalid("images", &why));
        }
        if let Some(fault) = settings.buckets.iter().find_map(Bucket::fault) {
            return Err(invalid("buckets", &fault));
        }
        if let Some(fault) = FileSystem::fault(&settings.file_systems) {
            return Err(invalid("file_systems", &fault));
        }
        if settings.channels.max_gib == 0 || settings.channels.max_gib.max(settings.channels.min_free_gib) > 1 << 30 {
            return Err(invalid("channels", "max_gib has to be at least 1, and neither number over 2^30"));
        }
        if let Some(mapping) = settings.s3.iter().find(|mapping| !mapping.uri.starts_with("s3://")) {
            return Err(invalid("s3", &format!("the uri {} does not begin with s3://", mapping.uri)));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Layers {
    settings: Settings,
    sources: BTreeMap<String, Source>,
}

impl Layers {
    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        // The message alone: the error's own display quotes the line, which may hold a password.
        let complain = |error: toml::de::Error| ConfigError::File {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count()),
            why: error.message().to_owned(),
        };
        self.settings = toml::from_str(&text).map_err(complain)?;
        let table: Table = toml::from_str(&text).map_err(complain)?;
        for (key, _) in leaves(&table) {
            self.sources.insert(key, Source::File(path.to_owned()));
        }
        let folder = std::path::absolute(path).ok().and_then(|path| path.parent().map(Path::to_owned));
        if let Some(folder) = folder {
            resolve_beside(&mut self.settings, &folder);
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: &Environment) -> Result<(), ConfigError> {
        let known = variables();
        for (name, value) in environment.0.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            if name == CONFIG_VARIABLE {
                continue;
            }
            let Some((key, default)) = known.get(name) else {
                let mut names: Vec<&str> = known.keys().map(String::as_str).collect();
                names.push(CONFIG_VARIABLE);
                return Err(ConfigError::UnknownVariable { name: name.clone(), known: names.join(", ") });
            };
            let wrong = |why: &str| ConfigError::Variable { name: name.clone(), why: why.to_owned() };
            let text = value.to_str().ok_or_else(|| wrong("its value is not UTF-8"))?;
            let value = match default {
                Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("it has to be a whole number"))?),
                Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("it has to be true or false"))?),
                _ => Value::String(text.to_owned()),
            };
            let mut table = Table::try_from(&self.settings).map_err(|_| wrong("the settings can't be written"))?;
            set(&mut table, key, value);
            let read = Settings::deserialize(table).map_err(|error| wrong(error.message()))?;
            // No variable sets a bucket, and a secret is written as `***`: it would not come back.
            self.settings = Settings { buckets: std::mem::take(&mut self.settings.buckets), ..read };
            self.sources.insert(key.clone(), Source::Variable(name.clone()));
        }
        Ok(())
    }

    fn add_flags(&mut self, flags: &Flags) {
        let mut note = |key: &str, flag| self.sources.insert(key.to_owned(), Source::Flag(flag));
        if let Some(listen) = flags.listen {
            self.settings.listen = listen;
            note("listen", "--listen");
        }
        if let Some(data_dir) = &flags.data_dir {
            self.settings.data_dir.clone_from(data_dir);
            note("data_dir", "--data-dir");
        }
        if let Some(url) = &flags.database_url {
            self.settings.database_url = url.clone();
            note("database_url", "--database-url");
        }
    }
}

/// The defaults that depend on the machine or on other settings.
fn fill_in(settings: &mut Settings, environment: &Environment) {
    if settings.data_dir.as_os_str().is_empty() {
        let home = environment.get("HOME").map(|home| Path::new(home).join(".local/share"));
        let base = environment.get("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute()).or(home);
        settings.data_dir = base.map_or_else(|| PathBuf::from("tunesmith-data"), |base| base.join("tunesmith"));
    }
    // Absolute, so that what is started later means the same folder from wherever it runs.
    if let Ok(absolute) = std::path::absolute(&settings.data_dir) {
        settings.data_dir = absolute;
    }
    if settings.database_url.expose().is_empty() {
        let file = settings.data_dir.join("tunesmith.db");
        settings.database_url = DatabaseUrl::new(format!("sqlite://{}", file.display()));
    }
    if settings.docker.address.is_empty() {
        let given = environment.get("DOCKER_HOST").and_then(|address| address.to_str());
        given.unwrap_or("unix:///var/run/docker.sock").clone_into(&mut settings.docker.address);
    }
    if settings.max_running == 0 {
        settings.max_running = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    }
}

/// Relative paths in a file mean "beside this file", wherever the server is started.
fn resolve_beside(settings: &mut Settings, folder: &Path) {
    if !settings.data_dir.as_os_str().is_empty() {
        settings.data_dir = folder.join(&settings.data_dir);
    }
    for mapping in &mut settings.s3 {
        mapping.path = folder.join(&mapping.path);
    }
    for file_system in &mut settings.file_systems {
        file_system.path = folder.join(&file_system.path);
    }
    for registry in &mut settings.registries {
        registry.password_file = folder.join(&registry.password_file);
    }
    for image in &mut settings.images {
        for (position, word) in image.command.iter_mut().enumerate() {
            // A program without a slash is looked up in PATH; a further word is a path when the file is there.
            let is_path = if position == 0 { word.contains('/') } else { folder.join(&*word).is_file() };
            if is_path && let Some(path) = folder.join(&*word).to_str() {
                path.clone_into(word);
            }
        }
    }
}

/// The variables: name, then key and default.
fn variables() -> BTreeMap<String, (String, Value)> {
    let defaults = Table::try_from(Settings::default()).unwrap_or_default();
    let settable = leaves(&defaults).into_iter().filter(|(_, value)| !value.is_array());
    settable.map(|(key, value)| (format!("{PREFIX}{}", key.replace('.', "_").to_uppercase()), (key, value))).collect()
}

/// All values that are no tables, with dotted keys.
fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(leaves(inner).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            other => found.push((key.clone(), other.clone())),
        }
    }
    found
}

fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(section) {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Flags) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tunesmith.toml");
        std::fs::write(&path, text).unwrap();
        (folder, Flags { config: Some(path), ..Flags::default() })
    }

    #[test]
    fn later_layers_win_and_are_named() {
        let (_folder, mut flags) = with_file("region = \"eu-west-1\"\naccount = \"111122223333\"\nmax_running = 3\n");
        flags.listen = Some(([127, 0, 0, 1], 9999).into());
        let environment = environment(&[("TUNESMITH_REGION", "eu-west-2"), ("TUNESMITH_LISTEN", "127.0.0.1:1")]);
        let loaded = Loaded::load(&flags, &environment).unwrap();
        assert_eq!(loaded.settings.account, "111122223333");
        assert_eq!(loaded.settings.region, "eu-west-2");
        assert_eq!(loaded.settings.listen.port(), 9999);
        assert_eq!(loaded.settings.max_running, 3);
        assert_eq!(loaded.source("region"), Source::Variable("TUNESMITH_REGION".to_owned()));
        assert_eq!(loaded.source("listen"), Source::Flag("--listen"));
        assert_eq!(loaded.source("account"), Source::File(flags.config.unwrap()));
        assert_eq!(loaded.source("log.level"), Source::Default);
    }

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        for (text, key) in [
            ("[artifacts]\nmax_gib = 0", "artifacts.max_gib"),
            ("[artifacts]\nmax_files = 0", "artifacts.max_files"),
            ("[artifacts]\nmax_gib = 20000000000", "artifacts.max_gib"),
            ("[process]\nmax_disk_gib = 20000000000", "process.max_disk_gib"),
            ("[process]\nlog_cap_mib = 0", "process.log_cap_mib"),
            ("[[images]]\nname = \"\"\ncommand = [\"a\"]", "images"),
            ("[[images]]\nname = \"a\"\ncommand = [\"a\"]\n[[images]]\nname = \"a\"\ncommand = [\"b\"]", "images"),
        ] {
            let (_folder, flags) = with_file(text);
            let refused = Loaded::load(&flags, &Environment::default()).unwrap_err().to_string();
            assert!(refused.starts_with(key), "{text}: {refused}");
        }
        let (_folder, flags) = with_file("[process]\nmax_disk_gib = 0\nmax_processes = 0");
        Loaded::load(&flags, &Environment::default()).unwrap();
    }

    #[test]
    fn unknown_keys_are_refused_wherever_they_stand() {
        for text in ["lissten = 1", "[quotas]\njobs = 1", "[[images]]\nname = \"a\"\ncommand = [\"a\"]\nshell = true"] {
            let (_folder, flags) = with_file(text);
            let error = Loaded::load(&flags, &Environment::default()).unwrap_err().to_string();
            assert!(error.contains("unknown field `"), "{error}");
        }
        let error = Loaded::load(&Flags::default(), &environment(&[("TUNESMITH_LISTEN_ON", "x")])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("TUNESMITH_LISTEN_ON is not a setting") && text.contains("TUNESMITH_LOG_LEVEL"));
    }

    #[test]
    fn a_wrong_value_is_located() {
        let (_folder, flags) = with_file("region = \"eu-west-1\"\n\nmax_running = \"many\"\n");
        let error = Loaded::load(&flags, &Environment::default()).unwrap_err().to_string();
        assert!(error.contains("tunesmith.toml, line 3: invalid type"), "{error}");
        for (name, value, part) in [
            ("TUNESMITH_MAX_RUNNING", "many", "TUNESMITH_MAX_RUNNING can't be used: it has to be a whole number"),
            ("TUNESMITH_QUOTAS_PARALLEL_TRAINING_JOBS", "-1", "TUNESMITH_QUOTAS_PARALLEL_TRAINING_JOBS"),
            ("TUNESMITH_LISTEN", "nowhere", "TUNESMITH_LISTEN can't be used: invalid socket address"),
            ("TUNESMITH_ACCOUNT", "12", "account (from TUNESMITH_ACCOUNT) can't be used: an account is twelve digits"),
            ("TUNESMITH_DATABASE_URL", "mysql://x", "database_url (from TUNESMITH_DATABASE_URL)"),
        ] {
            let error = Loaded::load(&Flags::default(), &environment(&[(name, value)])).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn computed_defaults_follow_the_machine_and_the_data_directory() {
        let loaded = Loaded::load(&Flags::default(), &environment(&[("HOME", "/home/me")])).unwrap();
        assert_eq!(loaded.settings.data_dir, Path::new("/home/me/.local/share/tunesmith"));
        assert_eq!(loaded.settings.database_url.expose(), "sqlite:///home/me/.local/share/tunesmith/tunesmith.db");
        assert!(loaded.settings.max_running >= 1);
        let elsewhere = environment(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data")]);
        let loaded = Loaded::load(&Flags::default(), &elsewhere).unwrap();
        assert_eq!(loaded.settings.data_dir, Path::new("/data/tunesmith"));
    }

    #[test]
    fn paths_in_a_file_stand_beside_it() {
        let (folder, flags) = with_file(
            "data_dir = \"data\"\n[[s3]]\nuri = \"s3://b\"\npath = \"buckets/b\"\n\
             [[file_systems]]\nid = \"fs-01234567\"\ntype = \"EFS\"\npath = \"efs\"\n\
             [[images]]\nname = \"a\"\ncommand = [\"python3\", \"train.py\", \"fast\"]\n\
             [[images]]\nname = \"b\"\ncommand = [\"./train\"]\nmetric_definitions = [{ Name = \"m\", Regex = \"m=(.*)\" }]\n",
        );
        std::fs::write(folder.path().join("train.py"), "").unwrap();
        let settings = Loaded::load(&flags, &Environment::default()).unwrap().settings;
        let beside = |name: &str| folder.path().join(name);
        assert_eq!(settings.data_dir, beside("data"));
        assert_eq!(settings.s3[0].path, beside("buckets/b"));
        assert_eq!(settings.file_systems[0].path, beside("efs"));
        assert_eq!(settings.images[0].command, ["python3", beside("train.py").to_str().unwrap(), "fast"]);
        assert_eq!(settings.images[1].command, [beside("./train").to_str().unwrap()]);
        assert_eq!(settings.images[1].metric_definitions[0].name, "m");
    }

    #[test]
    fn variables_leave_the_secrets_of_buckets_alone() {
        let (_folder, flags) =
            with_file("[[buckets]]\nname = \"b\"\naccess_key_id = \"key\"\nsecret_access_key = \"s3cret\"\n");
        let environment = environment(&[("TUNESMITH_LOG_LEVEL", "debug"), ("TUNESMITH_MAX_RUNNING", "3")]);
        let settings = Loaded::load(&flags, &environment).unwrap().settings;
        assert_eq!((settings.max_running, settings.buckets[0].secret_access_key.expose()), (3, "s3cret"));
    }

    #[test]
    fn an_endpoint_holds_no_password() {
        let (_folder, flags) = with_file("[[buckets]]\nname = \"b\"\nendpoint = \"http://me:s3cret@127.0.0.1:9\"\n");
        let refused = Loaded::load(&flags, &Environment::default()).unwrap_err().to_string();
        assert!(refused.contains("access_key_id") && !refused.contains("s3cret"), "{refused}");
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        let environment = environment(&[("TUNESMITH_DATABASE_URL", "postgres://me:s3cret@db/t")]);
        let loaded = Loaded::load(&Flags::default(), &environment).unwrap();
        let shown = format!("{:?} {loaded:?}", loaded.lines());
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("postgres://me:***@db/t"));
    }
}
