//! Refuses environment variables that look like options and are none: a misspelt one would otherwise leave its option as it
//! was, unnoticed.

use std::collections::BTreeSet;

use clap::Command;

use super::file::distance;

const PREFIX: &str = "SESSIOND_";

/// Checks that variables with our prefix are options, and names the nearest option for one that is not. The variables that
/// Kubernetes sets in every container for a service called `sessiond` are passed over.
pub fn check(command: &Command, names: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut known, mut unknown) = (BTreeSet::new(), Vec::new());
    collect(command, &mut known);
    for name in names.filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !of_kubernetes(name))
    {
        let near = known.iter().map(|one| (distance(&name, one), one)).min();
        let near = near.filter(|(distance, near)| *distance <= 1 + (near.len() - PREFIX.len()) / 3);
        unknown.push(match near {
            Some((_, near)) => format!("{name} (did you mean {near}?)"),
            None => name,
        });
    }
    unknown.sort_unstable();
    match unknown.as_slice() {
        [] => Ok(()),
        unknown => Err(format!(
            "there is no option for what is set in the environment as {}; unset it, or see `sessiond serve --help`",
            unknown.join(", ")
        )),
    }
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    let own = command.get_arguments().filter_map(|argument| argument.get_env());
    known.extend(own.map(|name| name.to_string_lossy().into_owned()));
    command.get_subcommands().for_each(|command| collect(command, known));
}

/// `SESSIOND_SERVICE_HOST`, `SESSIOND_SERVICE_PORT…`, `SESSIOND_PORT…`:
/// https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
fn of_kubernetes(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT") || rest == "PORT" || rest.starts_with("PORT_")
}
