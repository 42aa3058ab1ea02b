//! Bodies of the fuzz targets: laws that hold for every input. They end the process where one does not.

use super::{dispatch, Sniffed};
use crate::config::model::Protocol;

/// All protocols that are recognised by their bytes.
pub(crate) const ALL: [Protocol; 24] = [
    Protocol::Tls,
    Protocol::Quic,
    Protocol::Http1,
    Protocol::Http2,
    Protocol::Ssh,
    Protocol::Dtls,
    Protocol::Socks4,
    Protocol::Socks5,
    Protocol::Rdp,
    Protocol::Postgres,
    Protocol::Mqtt,
    Protocol::Xmpp,
    Protocol::Wireguard,
    Protocol::Openvpn,
    Protocol::Dns,
    Protocol::Stun,
    Protocol::Minecraft,
    Protocol::EternalTerminal,
    Protocol::Smb,
    Protocol::Redis,
    Protocol::Amqp,
    Protocol::Bittorrent,
    Protocol::Syslog,
    Protocol::Rsync,
];

/// Cuts of a long input that are tried: all near its begin, where parsers decide, and some of the rest.
const EACH_UP_TO: usize = 256;
const STEP: usize = 97;

/// Any protocol, of a stream and of one datagram: what was answered stays, and a name is in its one form.
pub fn sniff(data: &[u8]) {
    for protocol in ALL {
        let mut answer = Sniffed::NeedMore;
        for end in (0..=data.len()).filter(|end| *end <= EACH_UP_TO || end % STEP == 0 || *end == data.len()) {
            let next = dispatch::of_stream(protocol, data.get(..end).unwrap_or_default());
            assert!(answer == Sniffed::NeedMore || answer == next, "{protocol:?}: an answer must stay");
            answer = next;
        }
        let certain = dispatch::stream_is_certain(protocol, data);
        assert!(!(certain && answer == Sniffed::No), "{protocol:?}: what is certain is not denied");
        check_name(&answer);
        check_name(&dispatch::of_datagrams(protocol, &[data.to_vec()]));
    }
}

fn check_name(answer: &Sniffed) {
    if let Sniffed::Yes(found) = answer {
        let is_sound = |name: &String| {
            (1..=253).contains(&name.len()) && !name.ends_with('.') && *name == name.to_ascii_lowercase()
        };
        assert!(found.name.iter().all(is_sound), "a name is in its one form");
    }
}
