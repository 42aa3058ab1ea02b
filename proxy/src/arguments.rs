//! The command line: words in, a request or the fault out. A further command is a variant of [`Request`] and a row of
//! [`COMMANDS`].

mod catalogue;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::commands::{check, doctor, explain, reload, rules};
use crate::operation::command;
use crate::run::Start;

use catalogue::{Command, COMMANDS};

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Run {
        config: PathBuf,
        start: Start,
    },
    Check(check::Check),
    Schema,
    Explain(explain::Explain),
    Doctor(doctor::Doctor),
    Rules(rules::Rules),
    Reload(reload::Reload),
    /// Ask a running proxy.
    Ask(command::Command),
    /// Internal: what `run` starts beside itself.
    KeepRules,
    /// Internal, likewise.
    ReadNames,
    /// Print this.
    Help(String),
    Version,
}

/// The request, or what is wrong with it.
pub(crate) fn parse(words: &[String]) -> Result<Request, String> {
    let Some((first, rest)) = words.split_first() else {
        return Err(format!("a command is needed: {}", names()));
    };
    match first.as_str() {
        "--help" | "-h" => return Ok(Request::Help(usage())),
        "--version" | "-V" => return Ok(Request::Version),
        "keep-rules" if rest.is_empty() => return Ok(Request::KeepRules),
        "read-names" if rest.is_empty() => return Ok(Request::ReadNames),
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

    /// The value of an option that is one word of several, as in the configuration.
    fn word<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        let value = self.value(&[name])?;
        let read = |text| serde_json::from_value(Value::String(text)).map_err(|error| format!("{name}: {error}"));
        value.map(read).transpose()
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
    use crate::config::model::{Protocol, Transport};

    fn parse_line(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn each_command_is_read() {
        let run = |start| Ok(Request::Run { config: "c.toml".into(), start });
        assert_eq!(parse_line("run -c c.toml"), run(Start::Alone));
        assert_eq!(parse_line("run --take-over -c c.toml"), run(Start::TakeOver(None)));
        assert_eq!(parse_line("run -c c.toml --take-over=a.sock"), run(Start::TakeOver(Some("a.sock".into()))));
        let check = |json| Ok(Request::Check(check::Check { config: "c.toml".into(), json }));
        assert_eq!(parse_line("check -c c.toml"), check(false));
        assert_eq!(parse_line("check --config=c.toml --json"), check(true));
        assert_eq!(parse_line("check --json --config c.toml"), check(true));
        assert_eq!(parse_line("schema"), Ok(Request::Schema));
        let doctor = |json, probe| Ok(Request::Doctor(doctor::Doctor { config: "c.toml".into(), json, probe }));
        assert_eq!(
            (parse_line("doctor -c c.toml --probe"), parse_line("doctor --json -c c.toml")),
            (doctor(false, true), doctor(true, false))
        );
        let rules = |remove| Ok(Request::Rules(rules::Rules { config: "c.toml".into(), remove }));
        assert_eq!(
            (parse_line("rules -c c.toml"), parse_line("rules -c c.toml --remove")),
            (rules(false), rules(true))
        );
        let reload = |socket: &str, json| Ok(Request::Reload(reload::Reload { socket: socket.into(), json }));
        assert_eq!(parse_line("reload"), reload("/run/edgeproxy/admin.sock", false));
        assert_eq!(parse_line("reload --json -s /x"), reload("/x", true));
        assert_eq!(parse_line("reload --socket=/x"), reload("/x", false));
        assert_eq!(parse_line("keep-rules"), Ok(Request::KeepRules));
        assert_eq!(parse_line("--version"), Ok(Request::Version));
        assert_eq!(parse_line("-h"), Ok(Request::Help(usage())));
    }

    #[test]
    fn every_option_of_explain_is_read() {
        let line =
            "explain --sni a.b --port 7 --from 203.0.113.7 --transport udp --protocol quic --alpn h3,h2 --ech yes \
                    --listener public --json -c c.toml";
        let expected = explain::Explain {
            config: "c.toml".into(),
            sni: Some("a.b".to_owned()),
            port: Some(7),
            from: Some("203.0.113.7".parse().unwrap()),
            transport: Some(Transport::Udp),
            protocol: Some(Protocol::Quic),
            alpn: vec!["h3".to_owned(), "h2".to_owned()],
            ech: Some(true),
            listener: Some("public".to_owned()),
            json: true,
        };
        assert_eq!(parse_line(line), Ok(Request::Explain(expected)));
        let least = explain::Explain { config: "c.toml".into(), ..explain::Explain::default() };
        assert_eq!(parse_line("explain -c c.toml"), Ok(Request::Explain(least)));
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
            ("check -c --json", "-c needs a value"),
            ("check --config --other", "--config needs a value"),
            ("check -c a -c b", "-c or --config stands twice"),
            ("check -c a --json --json", "--json stands twice"),
            ("check -c a b", "does not take \"b\""),
            ("check -c a --jsn", "does not take \"--jsn\""),
            ("explain -c a --port 0", "\"0\" is not a port"),
            ("explain -c a --from home", "\"home\" is not an address"),
            ("explain -c a --transport sctp", "expected `tcp` or `udp`"),
            ("explain -c a --protocol http", "unknown variant `http`"),
            ("explain -c a --ech", "--ech needs a value"),
            ("explain -c a --ech maybe", "\"maybe\" is neither yes nor no"),
            ("explain --port 1", "explain needs -c"),
            ("run -c a --take-over b.sock", "does not take \"b.sock\""),
            ("run -c a --take-over --take-over=b", "--take-over stands twice"),
            ("schema now", "does not take \"now\""),
        ] {
            let fault = parse_line(line).expect_err(line);
            assert!(fault.contains(said), "{line:?} gave {fault:?}");
        }
    }
}
