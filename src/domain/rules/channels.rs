//! The rules of a training job's channels: names, sources of data, and what belongs to which input mode.

use std::collections::HashSet;

use super::{RuleError, s3_uri};
use crate::domain::request::{Channel, S3DataSource};

/// Checks the channels of a definition whose input mode is this.
pub(super) fn check(channels: &[Channel], input_mode: &str) -> Result<(), RuleError> {
    let mut names = HashSet::new();
    for channel in channels {
        let name = &channel.channel_name;
        if !names.insert(name.as_str()) {
            return Err(RuleError::DuplicateChannel(name.clone()));
        }
        // The model's pattern lets these through.
        if name == "." || name == ".." {
            return Err(RuleError::ChannelName(name.clone()));
        }
        let mode = channel.mode(input_mode);
        match (&channel.data_source.s3, &channel.data_source.file_system) {
            (Some(source), None) => s3(name, source, mode)?,
            (None, Some(source)) => {
                let path = || source.directory.clone();
                let refused = |why| RuleError::DirectoryPath { channel: name.clone(), path: path(), why };
                directory(&source.directory).map_err(refused)?;
                if mode != "File" {
                    return Err(RuleError::FileSystemInputMode(name.clone()));
                }
            }
            _ => return Err(RuleError::DataSource(name.clone())),
        }
        if mode != "Pipe" {
            pipe_only(name, "CompressionType", channel.compression_type.as_deref())?;
            pipe_only(name, "RecordWrapperType", channel.record_wrapper_type.as_deref())?;
        }
    }
    pipe_names(channels, input_mode)
}

fn s3(channel: &str, source: &S3DataSource, mode: &str) -> Result<(), RuleError> {
    s3_uri(&format!("S3Uri of channel {channel}"), &source.uri)?;
    let has_attributes = source.attribute_names.as_ref().is_some_and(|names| !names.is_empty());
    match (source.is_augmented(), has_attributes) {
        (true, _) if mode != "Pipe" => Err(RuleError::AugmentedInputMode(channel.to_owned())),
        (true, false) => Err(RuleError::NoAttributeNames(channel.to_owned())),
        (false, true) => Err(RuleError::AttributeNames(channel.to_owned())),
        _ => Ok(()),
    }
}

fn pipe_only(channel: &str, member: &'static str, value: Option<&str>) -> Result<(), RuleError> {
    match value.filter(|value| *value != "None") {
        None => Ok(()),
        Some(value) => Err(RuleError::PipeOnly { channel: channel.to_owned(), member, value: value.to_owned() }),
    }
}

/// Sees that no channel's folder is where a pipe is to be: `<channel>_<epoch>`.
fn pipe_names(channels: &[Channel], input_mode: &str) -> Result<(), RuleError> {
    let is_pipe = |channel: &&Channel| channel.mode(input_mode) == "Pipe";
    for pipe in channels.iter().filter(is_pipe) {
        let is_epoch = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let epoch_of = |name: &str| name.strip_prefix(pipe.channel_name.as_str())?.strip_prefix('_').map(is_epoch);
        let folders = channels.iter().filter(|channel| !is_pipe(channel));
        if let Some(folder) = folders.into_iter().find(|folder| epoch_of(&folder.channel_name) == Some(true)) {
            let (name, pipe) = (folder.channel_name.clone(), pipe.channel_name.clone());
            return Err(RuleError::PipeName { name, pipe });
        }
    }
    Ok(())
}

/// A directory of a file system as a path beneath its root (`.` is the root), or the rule that it breaks.
pub fn directory(path: &str) -> Result<&str, &'static str> {
    let below = path.strip_prefix('/').ok_or("it does not begin with /")?;
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() {
        return if path == "/" { Ok(".") } else { Err("it has an empty part") };
    }
    match below.split('/').find(|part| matches!(*part, "" | "." | "..") || part.chars().any(char::is_control)) {
        Some(_) => Err("it has an empty part, a control character, `.` or `..`"),
        None => Ok(below),
    }
}
