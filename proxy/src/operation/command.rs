//! The small commands that ask a running proxy: `top`, `connections`, `deny`, `undeny`, `denied`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use super::admin::{Denied, Page, Prefix, Request, Response};
use super::ask::{AskError, Asker};
use super::nft_sets::{self, Table};
use super::top::{self, Screen};

/// Where the socket is when no other is named.
pub(crate) const SOCKET: &str = "/run/edgeproxy/admin.sock";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// One of the small commands, with where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The admin socket.
    pub socket: PathBuf,
    /// What is wanted.
    pub wanted: Wanted,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `top`.
    Top {
        /// Do not look again.
        once: bool,
        /// As JSON lines instead of a table.
        json: bool,
    },
    /// `connections`.
    Connections,
    /// `deny`.
    Deny {
        /// Whom.
        prefixes: Vec<Prefix>,
        /// How long.
        seconds: u64,
    },
    /// `undeny`.
    Undeny(Vec<Prefix>),
    /// `denied`.
    Denied {
        /// As a script that fills the sets of this table.
        nft: Option<Table>,
    },
}

/// Reads what follows the name of one of these commands: `top`, `connections`, `deny`, `undeny`, `denied`.
///
/// # Errors
/// What is wrong with the words.
pub fn read(name: &str, rest: &[String]) -> Result<Command, String> {
    let (mut socket, mut once, mut json) = (PathBuf::from(SOCKET), false, false);
    let (mut prefixes, mut seconds, mut nft) = (Vec::new(), None, None);
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match (word.as_str(), name) {
            ("-s" | "--socket", _) => socket = value()?.into(),
            ("--once", "top") => once = true,
            ("--json", "top") => json = true,
            ("--for", "deny") => seconds = Some(lasting(value()?)?),
            ("--nft", "denied") => nft = Some(value()?.parse()?),
            (word, "deny" | "undeny") if !word.starts_with('-') => prefixes.push(word.parse()?),
            (word, _) => return Err(format!("{name} does not take {word}")),
        }
    }
    let some = |prefixes: Vec<Prefix>| {
        Some(prefixes).filter(|some| !some.is_empty()).ok_or_else(|| format!("{name} needs an address or a prefix"))
    };
    let wanted = match name {
        "top" => Wanted::Top { once, json },
        "connections" => Wanted::Connections,
        "deny" => {
            let seconds =
                seconds.ok_or("deny needs --for TIME, such as 1h; what is for ever stands in the configuration")?;
            Wanted::Deny { prefixes: some(prefixes)?, seconds }
        }
        "undeny" => Wanted::Undeny(some(prefixes)?),
        _ => Wanted::Denied { nft },
    };
    Ok(Command { socket, wanted })
}

/// Seconds of `90`, `90s`, `10m`, `1h`, `7d`.
fn lasting(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let found = units.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)));
    let (number, unit) = found.unwrap_or((text, 1));
    let digits = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.and_then(|number| number.parse::<u64>().ok()?.checked_mul(unit));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| format!("{text:?} is no time such as 90s, 10m, 1h or 7d"))
}

/// How large the screen is now.
pub type Size<'a> = &'a dyn Fn() -> Screen;

/// Does it. `screen`: that of `out`, if it is a terminal, on which `top` looks again and again.
pub fn run(command: &Command, out: &mut impl Write, screen: Option<Size<'_>>) -> Result<(), AskError> {
    let mut asker = Asker::connect(&command.socket)?;
    match &command.wanted {
        Wanted::Top { once, json } => look(&mut asker, out, *json, screen.filter(|_| !once && !json)),
        Wanted::Connections => connections(&mut asker, out),
        Wanted::Deny { prefixes, seconds } => {
            changed(&mut asker, out, &Request::Deny { prefixes: prefixes.clone(), seconds: *seconds })
        }
        Wanted::Undeny(prefixes) => changed(&mut asker, out, &Request::Undeny { prefixes: prefixes.clone() }),
        Wanted::Denied { nft: None } => denied(&mut asker, |entries| listed(out, entries)),
        Wanted::Denied { nft: Some(table) } => {
            let mut all = Vec::new();
            denied(&mut asker, |entries| {
                all.extend(entries);
                Ok(())
            })?;
            Ok(out.write_all(nft_sets::script(table, &all).as_bytes())?)
        }
    }
}

fn look(asker: &mut Asker, out: &mut impl Write, json: bool, screen: Option<Size<'_>>) -> Result<(), AskError> {
    let mut before = None;
    loop {
        let Response::Status(now) = asker.ask(&Request::Status {})? else { return Err(AskError::Unexpected) };
        let Some(screen) = screen else {
            let text = if json { serde_json::to_string(&now)? + "\n" } else { top::render(None, &now, None) };
            out.write_all(text.as_bytes())?;
            return Ok(out.flush()?);
        };
        let text = top::render(before.as_deref(), &now, Some(screen()));
        // Home, the table with the rest of each line cleared, the rest of the screen cleared (ECMA-48: CUP, EL, ED).
        write!(out, "\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))?;
        out.flush()?;
        before = Some(now);
        sleep(LOOK);
    }
}

fn connections(asker: &mut Asker, out: &mut impl Write) -> Result<(), AskError> {
    pages(|page| {
        let Response::Connections(entries) = asker.ask(&Request::Connections(page))? else {
            return Err(AskError::Unexpected);
        };
        entries.iter().try_for_each(|entry| writeln!(out, "{}", serde_json::to_string(entry)?))?;
        Ok(entries.len())
    })
}

fn denied(asker: &mut Asker, mut take: impl FnMut(Vec<Denied>) -> io::Result<()>) -> Result<(), AskError> {
    pages(|page| {
        let Response::Denied(entries) = asker.ask(&Request::Denied(page))? else { return Err(AskError::Unexpected) };
        let count = entries.len();
        take(entries)?;
        Ok(count)
    })
}

fn listed(out: &mut impl Write, entries: Vec<Denied>) -> io::Result<()> {
    entries.into_iter().try_for_each(|Denied { prefix, seconds }| {
        let left = seconds.map_or_else(|| "by the configuration".to_owned(), |seconds| format!("{seconds}s"));
        writeln!(out, "{prefix} {left}")
    })
}

/// Asks page by page until one is not full.
fn pages(mut ask: impl FnMut(Page) -> Result<usize, AskError>) -> Result<(), AskError> {
    let mut page = Page { skip: 0, most: 1_000 };
    while ask(page)? == page.most {
        page.skip += page.most;
    }
    Ok(())
}

fn changed(asker: &mut Asker, out: &mut impl Write, request: &Request) -> Result<(), AskError> {
    let Response::Changed(count) = asker.ask(request)? else { return Err(AskError::Unexpected) };
    writeln!(out, "{count}").map_err(io::Error::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Command, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        read(&words[0], &words[1..])
    }

    fn wanted(text: &str) -> Wanted {
        line(text).unwrap().wanted
    }

    #[test]
    fn each_command_is_read() {
        assert_eq!(wanted("top"), Wanted::Top { once: false, json: false });
        assert_eq!(wanted("top --json --once"), Wanted::Top { once: true, json: true });
        assert_eq!((wanted("denied"), wanted("connections")), (Wanted::Denied { nft: None }, Wanted::Connections));
        assert_eq!(wanted("denied --nft filter"), Wanted::Denied { nft: "filter".parse().ok() });
        let prefixes: Vec<Prefix> = ["192.0.2.1", "2001:db8::/32"].map(|prefix| prefix.parse().unwrap()).to_vec();
        let deny = Wanted::Deny { prefixes: prefixes.clone(), seconds: 3_600 };
        assert_eq!(wanted("deny 192.0.2.1 --for 1h 2001:db8::/32"), deny);
        assert_eq!(wanted("undeny 192.0.2.1 2001:db8::/32"), Wanted::Undeny(prefixes));
        assert_eq!(line("top").unwrap().socket, PathBuf::from(SOCKET));
        assert_eq!(line("top -s /x").unwrap().socket, PathBuf::from("/x"));
    }

    #[test]
    fn wrong_lines_are_refused_with_what_was_found() {
        for (text, said) in [
            ("deny --for 1h", "needs an address"),
            ("deny 192.0.2.1", "needs --for"),
            ("deny 192.0.2.1 --for", "--for needs a value"),
            ("deny nas --for 1h", "\"nas\""),
            ("deny 192.0.2.1 --for 1w", "\"1w\""),
            ("undeny 192.0.2.1 --for 1h", "--for"),
            ("denied --once", "--once"),
            ("denied --nft", "--nft needs a value"),
            ("denied --nft a;b", "\"a;b\""),
            ("deny --nft filter", "--nft"),
            ("top 192.0.2.1", "192.0.2.1"),
        ] {
            let fault = line(text).unwrap_err();
            assert!(fault.contains(said), "{text}: {fault}");
        }
    }

    #[test]
    fn times_are_read_with_their_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(lasting(text), Ok(seconds));
        }
        for text in ["", "s", "0", "0h", "-1s", "+1s", "1.5h", "1 h", "99999999999999999999d", "999999999999999999d"] {
            assert!(lasting(text).is_err(), "{text}");
        }
    }
}
