//! The commands: the words that each takes, and what its help says.

use super::{Request, Words};
use crate::commands::{check, doctor, explain, reload, rules};
use crate::operation::command;
use crate::run::Start;

/// One command.
pub(super) struct Command {
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) takes: &'static str,
    /// In a line.
    pub(super) does: &'static str,
    /// What `--help` adds: options, exit status, an example.
    pub(super) more: &'static str,
    pub(super) parse: fn(&mut Words) -> Result<Request, String>,
}

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "run",
        takes: "-c FILE [--take-over[=SOCKET]]",
        does: "serve by a configuration until SIGTERM",
        more: "  -c, --config FILE      the configuration
  --take-over[=SOCKET]   go on for a running proxy, of which this is the admin socket (that of the configuration without it)

The new process gets all sockets, UDP flows, denied sources and the keeper of the kernel's rules; connections go on in the
old one, which ends with the last of them. If the new one cannot start, the old one goes on.

SIGHUP, or `edgeproxy reload`, reads it anew (and opens the access log anew); a file with faults changes nothing. SIGTERM and SIGINT accept no
more and wait for open connections as long as timeouts.drain says; a second one does not wait.

Exit status: 0 ended by a signal, 1 it failed, 2 the configuration is wrong, 3 the host is not able.

example: edgeproxy run -c /etc/edgeproxy/edge.toml
",
        parse: |words| {
            let is_by_config = words.flag("--take-over")?;
            let start = match (is_by_config, words.value(&["--take-over"])?) {
                (false, None) => Start::Alone,
                (true, None) => Start::TakeOver(None),
                (false, Some(socket)) => Start::TakeOver(Some(socket.into())),
                (true, Some(_)) => return Err("--take-over stands twice".to_owned()),
            };
            Ok(Request::Run { config: words.config()?, start })
        },
    },
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
        name: "explain",
        takes: "-c FILE [OPTION ...]",
        does: "say which rule would take a client, where it leads, and why",
        more: "  -c, --config FILE       the configuration
  --sni NAME              the name that the client asks for
  --port PORT             the port that it asks for
  --from ADDRESS          where it is
  --transport tcp|udp     by which it comes
  --protocol PROTOCOL     what it speaks, as in a rule; with --sni, --alpn or --ech yes it is tls, over udp quic
  --alpn NAME[,NAME ...]  application protocols that it offers
  --ech yes|no            whether its hello hides an inner one, or pretends to
  --listener NAME         where it arrives, when there are several
  --json                  one JSON object on stdout

What is not said is not known, and the answer says what depends on it. Names are not resolved, and nothing is dialled.

example: edgeproxy explain -c edge.toml --sni git.nas.example.net --port 443 --from 203.0.113.7
",
        parse: explain_of,
    },
    Command {
        name: "doctor",
        takes: "-c FILE [--json] [--probe]",
        does: "say what this host lacks for a configuration, and the line that mends it",
        more: "  -c, --config FILE   the configuration
  --json              one JSON object on stdout
  --probe             also dial by TCP, from 192.0.2.1 or 2001:db8::1, each fixed target of backends that see clients

It asks as the user that it is run by. Exit status: 0 nothing is missing, 1 something is, 2 the configuration is wrong,
3 this host is not able.

example: edgeproxy doctor -c /etc/edgeproxy/home.toml
",
        parse: |words| {
            let (json, probe) = (words.flag("--json")?, words.flag("--probe")?);
            Ok(Request::Doctor(doctor::Doctor { config: words.config()?, json, probe }))
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
    Command {
        name: "reload",
        takes: "[--json] [-s SOCKET]",
        does: "have a running proxy read its configuration anew, and wait until it is in force",
        more: "  --json              one JSON object on stdout
  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

It reads the file that it was started with. When this command ends by 0, every worker serves by it. All that is wrong with a
file is told, and the old configuration stays. Several at once are carried out one after the other.

Exit status: 0 the file is in force, 1 it is not, or nobody answered within 90 seconds.

example: edgeproxy reload
",
        parse: |words| {
            let socket = words.value(&["-s", "--socket"])?;
            let socket = socket.map_or_else(|| command::SOCKET.into(), Into::into);
            Ok(Request::Reload(reload::Reload { socket, json: words.flag("--json")? }))
        },
    },
    Command {
        name: "top",
        takes: "[--once] [--json] [-s SOCKET]",
        does: "show what goes on in a running proxy, each second on a terminal",
        more: "  --once              look once
  --json              one JSON object on stdout
  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

example: edgeproxy top
",
        parse: ask,
    },
    Command {
        name: "connections",
        takes: "[-s SOCKET]",
        does: "list who is connected to a running proxy, a JSON line each",
        more: "  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

Keys are those of the access log (unique_id, listener, transport, peer, client, original_dst, protocol, server_name, rule, backend,
target, bytes_in, bytes_out), and age_us, microseconds since it began. The oldest of each worker come first.

example: edgeproxy connections | jq -r 'select(.client | startswith(\"203.0.113.7:\")) | [.rule, .target, .bytes_out] | @tsv'
",
        parse: ask,
    },
    Command {
        name: "deny",
        takes: "ADDRESS|PREFIX... --for TIME [-s SOCKET]",
        does: "refuse sources for a time: 90s, 10m, 1h, 7d",
        more: "  --for TIME          how long; what is for ever stands in the configuration, as `deny`
  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

It prints how many prefixes are refused by this.

example: edgeproxy deny 203.0.113.7 2001:db8:7::/48 --for 1h
",
        parse: ask,
    },
    Command {
        name: "undeny",
        takes: "ADDRESS|PREFIX... [-s SOCKET]",
        does: "refuse sources no more",
        more: "  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

It prints how many were refused until now. A prefix is taken back as it was given: an address of a refused prefix stays
refused, as do those of the configuration.

example: edgeproxy undeny 203.0.113.7
",
        parse: ask,
    },
    Command {
        name: "denied",
        takes: "[--nft TABLE] [-s SOCKET]",
        does: "list the sources that are refused, and for how long",
        more: "  --nft TABLE         as a script for `nft -f -`: it fills the sets edgeproxy_denied4 and edgeproxy_denied6 of this table of
                      family inet, for rules of your own there, such as `ip saddr @edgeproxy_denied4 drop`
  -s, --socket PATH   its operation.admin_socket; /run/edgeproxy/admin.sock without it

example: edgeproxy denied
         edgeproxy denied --nft filter | nft -f -
",
        parse: ask,
    },
];

fn explain_of(words: &mut Words) -> Result<Request, String> {
    let ech = words.value(&["--ech"])?.map(|text| match text.as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("--ech: {text:?} is neither yes nor no")),
    });
    let port = words.value(&["--port"])?.map(|text| {
        let port = text.parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| format!("--port: {text:?} is not a port from 1 to 65535"))
    });
    let from = words.value(&["--from"])?.map(|text| {
        text.parse().map_err(|_| format!("--from: {text:?} is not an address, as in 203.0.113.7 or 2001:db8::7"))
    });
    let alpn = words.value(&["--alpn"])?.unwrap_or_default();
    Ok(Request::Explain(explain::Explain {
        sni: words.value(&["--sni"])?,
        port: port.transpose()?,
        from: from.transpose()?,
        transport: words.word("--transport")?,
        protocol: words.word("--protocol")?,
        alpn: alpn.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        ech: ech.transpose()?,
        listener: words.value(&["--listener"])?,
        json: words.flag("--json")?,
        config: words.config()?,
    }))
}

fn ask(words: &mut Words) -> Result<Request, String> {
    let rest = std::mem::take(&mut words.rest);
    command::read(words.command, &rest).map(Request::Ask)
}
