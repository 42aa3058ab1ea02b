//! The command line: words in, a request or the fault out.

use std::path::PathBuf;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
usage: natbox run CONFIG [SOCKET]   translate until SIGTERM or SIGINT; SIGHUP forgets every mapping
       natbox rules CONFIG          print the rules that lead packets to it, for iptables-restore
       natbox check CONFIG          say what is wrong with a configuration
       natbox table SOCKET          print the mappings of a running natbox as one JSON line

  CONFIG   a JSON file
  SOCKET   path of the Unix socket at which a running natbox answers `natbox table`
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Run { config: PathBuf, socket: Option<PathBuf> },
    Rules { config: PathBuf },
    Check { config: PathBuf },
    Table { socket: PathBuf },
    Help,
    Version,
}

/// The request, or what is wrong with it.
pub(crate) fn parse(words: &[String]) -> Result<Request, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--help" | "-h"] => Ok(Request::Help),
        ["--version" | "-V"] => Ok(Request::Version),
        ["run", config] => Ok(Request::Run { config: config.into(), socket: None }),
        ["run", config, socket] => Ok(Request::Run { config: config.into(), socket: Some(socket.into()) }),
        ["rules", config] => Ok(Request::Rules { config: config.into() }),
        ["check", config] => Ok(Request::Check { config: config.into() }),
        ["table", socket] => Ok(Request::Table { socket: socket.into() }),
        [] => Err("a command is needed".to_owned()),
        [command @ ("run" | "rules" | "check" | "table"), rest @ ..] => {
            Err(format!("{command} does not take {} arguments", rest.len()))
        }
        [other, ..] => Err(format!("unknown command {other}; run, rules, check and table are allowed")),
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
        let (config, socket) = (PathBuf::from("c.json"), PathBuf::from("/run/n"));
        let run = Request::Run { config: config.clone(), socket: Some(socket.clone()) };
        assert_eq!(parse_line("run c.json /run/n"), Ok(run));
        assert_eq!(parse_line("run c.json"), Ok(Request::Run { config: config.clone(), socket: None }));
        assert_eq!(parse_line("rules c.json"), Ok(Request::Rules { config: config.clone() }));
        assert_eq!(parse_line("check c.json"), Ok(Request::Check { config }));
        assert_eq!(parse_line("table /run/n"), Ok(Request::Table { socket }));
        assert_eq!((parse_line("-h"), parse_line("--version")), (Ok(Request::Help), Ok(Request::Version)));
    }

    #[test]
    fn wrong_lines_are_refused_with_what_was_found() {
        for (line, said) in [
            ("", "a command is needed"),
            ("walk c.json", "unknown command walk"),
            ("run", "run does not take 0"),
            ("rules a b", "rules does not take 2"),
            ("table", "table does not take 0"),
        ] {
            let fault = parse_line(line).expect_err(line);
            assert!(fault.contains(said), "{line:?} gave {fault:?}");
        }
    }
}
