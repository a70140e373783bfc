//! The configuration file: TOML whose keys are the long names of flags. Its values become the flags' defaults, so that
//! one parser reads both, and flags and environment win.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command};

use super::{Config, REDACTED, without_password};

/// Where a file is looked for if none is named; the first that is found is read.
const PLACES: [&str; 2] = ["/etc/sessiond/sessiond.toml", "sessiond.toml"];

/// A file that was read: the texts of each option, by the option's id.
#[derive(Debug, Default)]
pub struct File {
    pub path: Option<PathBuf>,
    values: BTreeMap<String, Vec<String>>,
}

/// Every option of the service, as the command line knows it.
fn options() -> Command {
    Config::augment_args(Command::new("sessiond"))
}

fn name(option: &Arg) -> &str {
    option.get_long().unwrap_or_default()
}

fn is_list(option: &Arg) -> bool {
    option.get_value_delimiter().is_some()
}

fn is_switch(option: &Arg) -> bool {
    !option.get_action().takes_values()
}

impl File {
    /// Reads the file that is named, else the first one in the usual places, else none.
    pub fn read(named: Option<&Path>) -> Result<Self, String> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => match PLACES.iter().map(PathBuf::from).find(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(Self::default()),
            },
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("cannot read the configuration file {}: {error}", path.display()))?;
        let values = parse(&text).map_err(|error| format!("in {}: {error}", path.display()))?;
        Ok(Self { path: Some(path), values })
    }

    /// Gives the options of a command and of its subcommands the file's values as defaults.
    pub fn onto(&self, command: Command) -> Command {
        let mut command = command;
        for (id, values) in &self.values {
            if command.get_arguments().any(|argument| argument.get_id() == id.as_str()) {
                command = command.mut_arg(id, |argument| {
                    // Help shows defaults, so that a secret from the file has to be hidden there, as one from the
                    // environment is.
                    let secret = argument.is_hide_env_values_set();
                    argument.default_values(values).hide_default_value(secret)
                });
            }
        }
        let subcommands: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
        subcommands
            .into_iter()
            .fold(command, |command, name| command.mut_subcommand(name, |subcommand| self.onto(subcommand)))
    }

    /// Every option with the value in force and where that came from, as a file that would say the same.
    pub fn effective(&self, matches: &ArgMatches) -> String {
        let mut text = String::new();
        for option in options().get_arguments() {
            let id = option.get_id().as_str();
            let from = match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "flag".to_owned(),
                Some(ValueSource::EnvVariable) => {
                    option.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
                }
                _ if self.values.contains_key(id) => {
                    self.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
                }
                _ => "default".to_owned(),
            };
            let raw = matches.get_raw(id).into_iter().flatten();
            let values: Vec<_> = raw.map(|value| value.to_string_lossy().into_owned()).collect();
            text += &match written(option, &values) {
                Some(value) => format!("{} = {value} # {from}\n", name(option)),
                None => format!("# {} is not set\n", name(option)),
            };
        }
        text
    }
}

/// Reads the texts of each option. Keys that are no options, and values that a flag would not take, are errors.
fn parse(text: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let command = options();
    let mut values = BTreeMap::new();
    for (key, value) in table {
        let wanted = key.replace('_', "-");
        let option = command.get_arguments().find(|option| name(option) == wanted);
        let option = option.ok_or_else(|| unknown(&key, &command))?;
        let texts = texts(option, value).map_err(|error| format!("{key}: {error}"))?;
        accepted(option, &texts).map_err(|error| format!("{key}: {error}"))?;
        values.insert(option.get_id().to_string(), texts);
    }
    Ok(values)
}

fn texts(option: &Arg, value: toml::Value) -> Result<Vec<String>, String> {
    match value {
        toml::Value::Array(items) if is_list(option) => items
            .into_iter()
            .map(|item| texts(option, item))
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.concat()),
        toml::Value::Boolean(value) if is_switch(option) => Ok(vec![value.to_string()]),
        _ if is_switch(option) => Err("true or false is wanted".to_owned()),
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(number) => Ok(vec![number.to_string()]),
        other => Err(format!("a {} is not wanted here", other.type_str())),
    }
}

/// Checks texts with the option's own parser, one by one, so that the error can name the key.
fn accepted(option: &Arg, texts: &[String]) -> Result<(), String> {
    if is_switch(option) {
        return Ok(());
    }
    let command = Command::new("sessiond").no_binary_name(true).arg(option.clone());
    let arguments = texts.iter().map(|text| format!("--{}={text}", name(option)));
    let outcome = command.try_get_matches_from(arguments);
    outcome.map(|_| ()).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        first.strip_prefix("error: ").unwrap_or(first).to_owned()
    })
}

fn unknown(key: &str, command: &Command) -> String {
    let wanted = key.replace('_', "-").to_lowercase();
    let near = command.get_arguments().map(|option| (distance(&wanted, name(option)), name(option))).min();
    match near {
        Some((distance, near)) if distance <= 1 + near.len() / 3 => {
            format!("unknown key {key:?}; did you mean {near:?}?")
        }
        _ => format!("unknown key {key:?}; `sessiond config --example` lists all"),
    }
}

/// How many characters to insert, remove or change to make one word the other.
pub(super) fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, one) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (place, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(one != *other);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[to.len()]
}

/// Values as TOML; none if nothing is set. A secret is not shown.
fn written(option: &Arg, values: &[String]) -> Option<String> {
    let quoted = |text: &String| toml::Value::String(text.clone()).to_string();
    if is_switch(option) {
        return values.first().cloned();
    }
    if is_list(option) {
        // A list from a flag or variable is one text with commas.
        let items = values.iter().flat_map(|text| text.split(',')).map(|text| quoted(&text.to_owned()));
        let items: Vec<_> = items.collect();
        return (!items.is_empty()).then(|| format!("[{}]", items.join(", ")));
    }
    let value = values.first()?;
    let secret = option.is_hide_env_values_set();
    let number = value.parse::<u32>().is_ok();
    Some(if option.get_id() == "database" {
        // Only a part of it can be a secret.
        quoted(&without_password(value))
    } else if secret {
        quoted(&REDACTED.to_owned())
    } else if number {
        value.clone()
    } else {
        quoted(value)
    })
}

/// An example of a file: every option with what it means and its default, each commented out.
pub fn example() -> String {
    let mut text = "# Every option of `sessiond serve`, with its default. Flags and the environment win over this file, which is\n\
                    # looked for at /etc/sessiond/sessiond.toml, then ./sessiond.toml, or named with --config. Written by\n\
                    # `sessiond config --example`.\n"
        .to_owned();
    for option in options().get_arguments() {
        let help = option.get_help().map(ToString::to_string).unwrap_or_default();
        let defaults = option.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy().into_owned()).collect();
        let value = written(option, &defaults).unwrap_or_else(|| placeholder(option));
        text += &format!("\n# {}\n#{} = {value}\n", help.replace('\n', "\n# "), name(option));
    }
    text
}

fn placeholder(option: &Arg) -> String {
    let values = option.get_value_names().unwrap_or_default();
    let shown = values.first().map_or_else(String::new, |value| format!("\"{value}\""));
    match (is_switch(option), is_list(option)) {
        (true, _) => "false".to_owned(),
        (_, true) => format!("[{shown}]"),
        _ => shown,
    }
}
