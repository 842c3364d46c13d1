//! Where the values come from: flags, environment, files, in this order.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    path::PathBuf,
};

use clap::{Arg, Command};

use super::{Kind, Row, Section, SettingError};

/// Prefixes under which an unknown variable is an error.
const GUARDED: [&str; 4] = ["DB_", "HTTP_", "RPC_", "REDIS_"];

/// Variables with a guarded prefix that belong to somebody else: proxies, by convention.
const FOREIGN: [&str; 2] = ["HTTP_PROXY", "HTTP_PROXY_NO_REVALIDATE"];

/// Why a service does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A wrong flag, or `--help`: clap has the text and the exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A wrong setting.
    #[error(transparent)]
    Setting(#[from] SettingError),
}

/// Raw values by variable.
#[derive(Clone, Debug, Default)]
pub struct Values {
    flags: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
}

impl Values {
    /// From an environment alone.
    pub fn from_map(environment: BTreeMap<String, String>) -> Self {
        Self { flags: BTreeMap::new(), environment }
    }

    /// From command-line arguments (the program's name first) and an environment. `command` may have
    /// subcommands; its matches are returned beside the values.
    ///
    /// # Errors
    /// A wrong flag, `--help`, or an unknown variable under one of our prefixes.
    pub fn from_args(
        command: Command,
        sections: &[Section],
        args: impl IntoIterator<Item = OsString>,
        environment: BTreeMap<String, String>,
    ) -> Result<(Self, clap::ArgMatches), StartError> {
        let matches = with_flags(command, sections).try_get_matches_from(args)?;
        let rows = sections.iter().flat_map(|section| &section.rows);
        let flags = rows
            .filter_map(|row| {
                let value = matches.get_one::<String>(row.variable)?;
                Some((row.variable.to_owned(), value.clone()))
            })
            .collect();
        let values = Self { flags, environment };
        values.refuse_unknown(sections)?;
        Ok((values, matches))
    }

    /// The value of one setting.
    ///
    /// # Errors
    /// The value is not accepted, or its file cannot be read.
    pub fn get<K: Kind>(&self, kind: &K) -> Result<K::Value, SettingError> {
        let variable = kind.variable();
        let given = self.flags.get(variable).or_else(|| self.environment.get(variable)).cloned();
        let given = match given {
            None if kind.secret() => self.read_file(variable)?,
            given => given,
        };
        let Some(text) = given else { return Ok(kind.default()) };
        kind.parse(text.trim()).ok_or_else(|| SettingError::Invalid {
            variable,
            shown: if kind.secret() { "the given value".to_owned() } else { format!("{text:?}") },
            expected: expected(&kind.range(), kind.unit()),
        })
    }

    fn read_file(&self, variable: &'static str) -> Result<Option<String>, SettingError> {
        let Some(path) = self.environment.get(&format!("{variable}_FILE")).map(PathBuf::from) else {
            return Ok(None);
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.trim_end().to_owned())),
            Err(cause) => Err(SettingError::Unreadable { variable, path, cause }),
        }
    }

    fn refuse_unknown(&self, sections: &[Section]) -> Result<(), SettingError> {
        let pools = crate::config::sections();
        let rows = || sections.iter().chain(&pools).flat_map(|section| &section.rows);
        let mut known: BTreeSet<String> = rows().map(|row| row.variable.to_owned()).collect();
        known.extend(rows().filter(|row| row.secret).map(|row| format!("{}_FILE", row.variable)));
        let guarded = |name: &&String| GUARDED.iter().any(|prefix| name.starts_with(prefix));
        let unknown = self
            .environment
            .keys()
            .filter(guarded)
            .find(|name| !known.contains(*name) && !FOREIGN.contains(&name.as_str()));
        unknown.map_or(Ok(()), |variable| {
            let nearest = known.iter().map(|name| (strsim::damerau_levenshtein(name, variable), name)).min();
            let hint = nearest
                .filter(|(distance, _)| *distance <= 4)
                .map(|(_, name)| format!(" (did you mean {name}?)"))
                .unwrap_or_default();
            Err(SettingError::Unknown { variable: variable.clone(), hint })
        })
    }
}

fn expected(range: &str, unit: &str) -> String {
    match range.starts_with(|c: char| c.is_ascii_digit()) {
        true => format!("in {range} {unit}"),
        false => range.to_owned(),
    }
}

fn with_flags(command: Command, sections: &[Section]) -> Command {
    sections.iter().fold(command, |command, section| {
        section.rows.iter().fold(command.next_help_heading(section.title), |command, row| {
            command.arg(
                Arg::new(row.variable)
                    .long(row.flag())
                    .value_name(row.unit)
                    .global(true)
                    .help(help_text(row)),
            )
        })
    })
}

/// One setting in `--help`: documentation, variable, default and range.
pub fn help_text(row: &Row) -> String {
    let default = if row.default.is_empty() { "none" } else { &row.default };
    let file = if row.secret { format!(" or {}_FILE", row.variable) } else { String::new() };
    format!("{} [env: {}{file}] [default: {default}] [accepts: {}]", row.doc, row.variable, row.range)
}

/// The sections as tables for `docs/CONFIG.md`.
pub fn markdown(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        let _ = write!(out, "\n### {}\n\n", section.title);
        out.push_str(
            "| variable | flag | default | unit | accepts | what for |\n|---|---|---|---|---|---|\n",
        );
        for row in &section.rows {
            let default =
                if row.default.is_empty() { "none".to_owned() } else { format!("`{}`", row.default) };
            let secret = if row.secret { " Secret: also from the file that `…_FILE` names." } else { "" };
            let _ = writeln!(
                out,
                "| `{}` | `--{}` | {default} | {} | {} | {}{secret} |",
                row.variable,
                row.flag(),
                row.unit,
                row.range,
                row.doc
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{http::HttpConfig, postgres::PgConfig};

    fn start(args: &[&str], environment: &[(&str, &str)]) -> Result<Values, StartError> {
        let args = std::iter::once("test").chain(args.iter().copied()).map(OsString::from);
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let sections = [HttpConfig::section(), PgConfig::section()];
        Values::from_args(Command::new("test"), &sections, args, environment).map(|(values, _)| values)
    }

    #[test]
    fn a_flag_wins_over_the_variable_and_that_over_the_default() {
        let values =
            start(&["--http-max-sockets", "7"], &[("HTTP_MAX_SOCKETS", "8"), ("HTTP_MAX_FREE_SOCKETS", "9")]);
        let config = HttpConfig::read(&values.unwrap()).unwrap();
        assert_eq!((config.max_sockets, config.max_free_sockets), (7, 9));
        assert_eq!(config.max_total_sockets, 256);
    }

    #[test]
    fn a_misspelt_variable_is_named_with_the_right_one() {
        let error = start(&[], &[("DB_POOL_SIZ", "3")]).unwrap_err();
        assert_eq!(error.to_string(), "DB_POOL_SIZ: no such setting (did you mean DB_POOL_SIZE?)");
    }

    #[test]
    fn a_known_variable_of_another_pool_and_the_proxy_variable_are_accepted() {
        assert!(start(&[], &[("REDIS_MAX_RETRIES", "3"), ("HTTP_PROXY", "http://proxy")]).is_ok());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_variable_value_and_range() {
        let values = start(&[], &[("DB_POOL_SIZE", "0")]).unwrap();
        let error = PgConfig::read(&values).unwrap_err().to_string();
        assert!(error.starts_with("DB_POOL_SIZE: \"0\" is not in 1..="), "{error}");
    }

    #[test]
    fn words_and_addresses_are_read_strictly() {
        let servers = "127.0.0.1, [::1]:5353,::2";
        let values = start(&[], &[("HTTP_DNS", "system"), ("HTTP_DNS_SERVERS", servers)]).unwrap();
        let config = HttpConfig::read(&values).unwrap();
        let expected: [std::net::SocketAddr; 3] =
            ["127.0.0.1:53", "[::1]:5353", "[::2]:53"].map(|text| text.parse().unwrap());
        assert_eq!((config.dns, config.dns_servers.as_slice()), ("system", &expected[..]));
        for (variable, value) in [("HTTP_DNS", "cache"), ("HTTP_DNS_SERVERS", "127.0.0.1,dns.test")] {
            let error = HttpConfig::read(&start(&[], &[(variable, value)]).unwrap()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{variable}: {value:?} is not ")), "{error}");
        }
    }

    #[test]
    fn a_secret_comes_from_a_file_and_is_never_printed() {
        let file = std::env::temp_dir().join(format!("pools-core-secret-{}", std::process::id()));
        std::fs::write(&file, "postgres://u:hunter2@db/x\n").unwrap();
        let values = start(&[], &[("DATABASE_URL_FILE", file.to_str().unwrap())]).unwrap();
        let config = PgConfig::read(&values).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(config.url.is_some());
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
