//! The command line: words in, a request or the fault out.

use std::os::fd::RawFd;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
usage: linkwire TAP_A TAP_B
       linkwire --fd FD_A FD_B
       linkwire serve FD

Carries Ethernet frames between two TAP devices, both ways, unchanged and in order, until SIGTERM or SIGINT;
then prints one JSON line: frames, bytes and drops of each direction.

  TAP_A TAP_B   names of existing TAP devices of this network namespace
  --fd          inherited descriptors of /dev/net/tun instead, attached with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
  serve FD      many wires with delay, loss and so on, as the messages on the Unix socket FD (SOCK_SEQPACKET) say
";

/// The longest name of an interface, in bytes (IFNAMSIZ less its final zero).
const LONGEST_NAME: usize = 15;
/// Descriptors below are stdin, stdout and stderr.
const FIRST_FREE_DESCRIPTOR: RawFd = 3;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Carry(Ends),
    /// The descriptor of the master's socket.
    Serve(RawFd),
    Help,
    Version,
}

/// How the two TAPs are given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    Named(String, String),
    Inherited(RawFd, RawFd),
}

/// The request, or what is wrong with it.
pub(crate) fn parse(words: &[String]) -> Result<Request, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--help" | "-h"] => Ok(Request::Help),
        ["--version" | "-V"] => Ok(Request::Version),
        ["--fd", a, b] => inherited(a, b).map(Request::Carry),
        ["serve", socket] => descriptor(socket).map(Request::Serve),
        ["serve"] => Err("serve takes one descriptor, found 0".to_owned()),
        [option, ..] if option.starts_with('-') && *option != "--fd" => Err(format!("unknown option {option}")),
        ["--fd", rest @ ..] => Err(format!("--fd takes two descriptors, found {}", rest.len())),
        [a, b] => named(a, b).map(Request::Carry),
        other => Err(format!("two TAP devices are needed, found {}", other.len())),
    }
}

fn named(a: &str, b: &str) -> Result<Ends, String> {
    for name in [a, b] {
        if name.is_empty() || name.len() > LONGEST_NAME {
            return Err(format!("{name:?} is no interface name: 1 to {LONGEST_NAME} bytes are allowed"));
        }
    }
    if a == b {
        return Err(format!("both ends are {a}: a wire needs two devices"));
    }
    Ok(Ends::Named(a.to_owned(), b.to_owned()))
}

fn inherited(a: &str, b: &str) -> Result<Ends, String> {
    let (a, b) = (descriptor(a)?, descriptor(b)?);
    if a == b {
        return Err(format!("both ends are descriptor {a}: a wire needs two devices"));
    }
    Ok(Ends::Inherited(a, b))
}

fn descriptor(word: &str) -> Result<RawFd, String> {
    match word.parse() {
        Ok(number) if number >= FIRST_FREE_DESCRIPTOR => Ok(number),
        _ => Err(format!("{word:?} is no inherited descriptor: a number from {FIRST_FREE_DESCRIPTOR} is allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn two_names_are_two_ends() {
        let ends = Ends::Named("tap-a".into(), "tap-b".into());
        assert_eq!(parse_line("tap-a tap-b"), Ok(Request::Carry(ends)));
    }

    #[test]
    fn two_descriptors_are_two_ends() {
        assert_eq!(parse_line("--fd 3 17"), Ok(Request::Carry(Ends::Inherited(3, 17))));
    }

    #[test]
    fn a_master_is_a_descriptor() {
        assert_eq!(parse_line("serve 5"), Ok(Request::Serve(5)));
    }

    #[test]
    fn help_and_version_are_requests() {
        assert_eq!(parse_line("--help"), Ok(Request::Help));
        assert_eq!(parse_line("-V"), Ok(Request::Version));
    }

    #[test]
    fn wrong_lines_are_refused_with_what_was_found() {
        for (line, said) in [
            ("", "found 0"),
            ("one", "found 1"),
            ("one two three", "found 3"),
            ("same same", "both ends are same"),
            ("a-name-beyond-15 b", "\"a-name-beyond-15\""),
            ("--delay 5ms a b", "unknown option --delay"),
            ("--fd 3", "found 1"),
            ("--fd 3 3", "both ends are descriptor 3"),
            ("--fd 1 4", "\"1\""),
            ("--fd x 4", "\"x\""),
            ("serve", "one descriptor"),
            ("serve 2", "\"2\""),
        ] {
            let fault = parse_line(line).expect_err(line);
            assert!(fault.contains(said), "{line:?} gave {fault:?}");
        }
    }
}
