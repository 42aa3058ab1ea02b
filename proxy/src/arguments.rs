//! The command line: words in, a request or the fault out. A further command is a variant of [`Request`] and a row of
//! [`COMMANDS`].

use std::path::PathBuf;

use crate::commands::{check, doctor, rules};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Check(check::Check),
    Schema,
    Doctor(doctor::Doctor),
    Rules(rules::Rules),
    /// Internal: what `run` starts beside itself.
    KeepRules,
    /// Print this.
    Help(String),
    Version,
}

/// One command.
struct Command {
    name: &'static str,
    /// What follows the name.
    takes: &'static str,
    /// In a line.
    does: &'static str,
    /// What `--help` adds: options, exit status, an example.
    more: &'static str,
    parse: fn(&mut Words) -> Result<Request, String>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "check",
        takes: "-c FILE [--json]",
        does: "say what is wrong with a configuration, all of it",
        more: "  -c, --config FILE   the configuration
  --json              one JSON object on stdout

Exit status: 0 it is right, 2 it is not.

example: edgeproxy check -c /etc/edgeproxy/edge.toml
",
        parse: |words| {
            let json = words.flag("--json")?;
            Ok(Request::Check(check::Check { config: words.config()?, json }))
        },
    },
    Command {
        name: "schema",
        takes: "",
        does: "print the JSON Schema of the configuration, for editors",
        more: "\
example: edgeproxy schema > edgeproxy.schema.json
         and in the first line of the configuration: #:schema ./edgeproxy.schema.json
",
        parse: |_| Ok(Request::Schema),
    },
    Command {
        name: "doctor",
        takes: "-c FILE [--json]",
        does: "say what this host lacks for a configuration, and the line that mends it",
        more: "  -c, --config FILE   the configuration
  --json              one JSON object on stdout

It asks as the user that it is run by. Exit status: 0 nothing is missing, 1 something is, 2 the configuration is wrong,
3 this host is not able.

example: edgeproxy doctor -c /etc/edgeproxy/home.toml
",
        parse: |words| {
            let json = words.flag("--json")?;
            Ok(Request::Doctor(doctor::Doctor { config: words.config()?, json }))
        },
    },
    Command {
        name: "rules",
        takes: "-c FILE [--remove]",
        does: "print the lines of ip and nft that transparency needs, for `manage_rules = false`",
        more: "  -c, --config FILE   the configuration
  --remove            the lines that take them away again

example: edgeproxy rules -c /etc/edgeproxy/home.toml | sudo sh
",
        parse: |words| {
            let remove = words.flag("--remove")?;
            Ok(Request::Rules(rules::Rules { config: words.config()?, remove }))
        },
    },
];

/// The request, or what is wrong with it.
pub(crate) fn parse(words: &[String]) -> Result<Request, String> {
    let Some((first, rest)) = words.split_first() else {
        return Err(format!("a command is needed: {}", names()));
    };
    match first.as_str() {
        "--help" | "-h" => return Ok(Request::Help(usage())),
        "--version" | "-V" => return Ok(Request::Version),
        "keep-rules" if rest.is_empty() => return Ok(Request::KeepRules),
        _ => {}
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == first) else {
        return Err(format!("unknown command {first:?}; there are: {}", names()));
    };
    if rest.iter().any(|word| word == "--help" || word == "-h") {
        return Ok(Request::Help(help(command)));
    }
    let mut words = Words { command: command.name, rest: rest.to_vec() };
    let request = (command.parse)(&mut words).and_then(|request| words.end().map(|()| request));
    request.map_err(|fault| format!("{fault}\n{}", line(command)))
}

/// What `--help` prints.
pub(crate) fn usage() -> String {
    let widest = COMMANDS.iter().map(|command| command.name.len()).max().unwrap_or(0);
    let lines: String =
        COMMANDS.iter().map(|command| format!("  {:widest$}   {}\n", command.name, command.does)).collect();
    format!(
        "usage: edgeproxy COMMAND ...\n\n{lines}\nedgeproxy COMMAND --help says more; edgeproxy --version names the version.\n\n\
         example: edgeproxy check -c edge.toml\n"
    )
}

fn help(command: &Command) -> String {
    format!("{}\n{}.\n\n{}", line(command), capitalised(command.does), command.more)
}

fn line(command: &Command) -> String {
    format!("usage: edgeproxy {} {}", command.name, command.takes).trim_end().to_owned() + "\n"
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn names() -> String {
    COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(", ")
}

/// The words after a command; options may stand in any order, as `--option VALUE` or `--option=VALUE`.
struct Words {
    command: &'static str,
    rest: Vec<String>,
}

impl Words {
    /// Whether the option without a value is there.
    fn flag(&mut self, name: &str) -> Result<bool, String> {
        let before = self.rest.len();
        self.rest.retain(|word| word != name);
        match before - self.rest.len() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(format!("{name} stands twice")),
        }
    }

    /// The value of an option that has one, by any of its names.
    fn value(&mut self, names: &[&str]) -> Result<Option<String>, String> {
        let mut value = None;
        let mut kept = Vec::new();
        let mut words = std::mem::take(&mut self.rest).into_iter();
        while let Some(word) = words.next() {
            let joined = names.iter().find_map(|name| word.strip_prefix(name)?.strip_prefix('='));
            let found = match joined {
                Some(value) => value.to_owned(),
                None if names.contains(&word.as_str()) => {
                    let next = words.next().filter(|next| !next.starts_with("--"));
                    next.ok_or_else(|| format!("{word} needs a value"))?
                }
                None => {
                    kept.push(word);
                    continue;
                }
            };
            if value.replace(found).is_some() {
                return Err(format!("{} stands twice", names.join(" or ")));
            }
        }
        self.rest = kept;
        Ok(value)
    }

    /// The value of an option that must be there.
    fn needed(&mut self, names: &[&str], what: &str) -> Result<String, String> {
        self.value(names)?.ok_or_else(|| format!("{} needs {} {what}", self.command, names.join(" or ")))
    }

    fn config(&mut self) -> Result<PathBuf, String> {
        self.needed(&["-c", "--config"], "FILE").map(PathBuf::from)
    }

    /// Nothing may be left over.
    fn end(&self) -> Result<(), String> {
        match self.rest.first() {
            Some(word) => Err(format!("{} does not take {word:?}", self.command)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_is_read() {
        let check = |json| Ok(Request::Check(check::Check { config: "c.toml".into(), json }));
        assert_eq!(parse_line("check -c c.toml"), check(false));
        assert_eq!(parse_line("check --config=c.toml --json"), check(true));
        assert_eq!(parse_line("check --json --config c.toml"), check(true));
        assert_eq!(parse_line("schema"), Ok(Request::Schema));
        let doctor = |json| Ok(Request::Doctor(doctor::Doctor { config: "c.toml".into(), json }));
        assert_eq!(
            (parse_line("doctor -c c.toml"), parse_line("doctor --json -c c.toml")),
            (doctor(false), doctor(true))
        );
        let rules = |remove| Ok(Request::Rules(rules::Rules { config: "c.toml".into(), remove }));
        assert_eq!(
            (parse_line("rules -c c.toml"), parse_line("rules -c c.toml --remove")),
            (rules(false), rules(true))
        );
        assert_eq!(parse_line("keep-rules"), Ok(Request::KeepRules));
        assert_eq!(parse_line("--version"), Ok(Request::Version));
        assert_eq!(parse_line("-h"), Ok(Request::Help(usage())));
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        assert!(!COMMANDS.is_empty());
        assert!(usage().contains("\nexample: edgeproxy "));
        for command in COMMANDS {
            let Ok(Request::Help(help)) = parse_line(&format!("{} --help", command.name)) else {
                panic!("{}", command.name)
            };
            assert!(help.starts_with(&format!("usage: edgeproxy {}", command.name)), "{help}");
            assert!(help.contains(&format!("\nexample: edgeproxy {}", command.name)), "{help}");
            assert!(usage().contains(command.does), "{}", command.name);
        }
    }

    #[test]
    fn wrong_lines_are_refused_with_what_was_found() {
        for (line, said) in [
            ("", "a command is needed"),
            ("walk -c c.toml", "unknown command \"walk\""),
            ("check", "check needs -c or --config FILE"),
            ("check c.toml", "check needs -c"),
            ("check -c", "-c needs a value"),
            ("check -c --json", "check needs -c"),
            ("check --config --other", "--config needs a value"),
            ("check -c a -c b", "-c or --config stands twice"),
            ("check -c a --json --json", "--json stands twice"),
            ("check -c a b", "does not take \"b\""),
            ("check -c a --jsn", "does not take \"--jsn\""),
            ("schema now", "does not take \"now\""),
        ] {
            let fault = parse_line(line).expect_err(line);
            assert!(fault.contains(said), "{line:?} gave {fault:?}");
        }
    }
}
