//! The words and the places that protocols have in logs and metrics.

use crate::config::model::Protocol;

/// Every word, in the order of [`place`]; the last stands for what was not recognised.
pub const LABELS: [&str; 32] = [
    "tls",
    "quic",
    "http1",
    "http2",
    "ssh",
    "dtls",
    "socks4",
    "socks5",
    "rdp",
    "postgres",
    "mqtt",
    "xmpp",
    "wireguard",
    "openvpn",
    "dns",
    "stun",
    "minecraft",
    "eternal_terminal",
    "smb",
    "redis",
    "amqp",
    "bittorrent",
    "syslog",
    "rsync",
    "git",
    "bitcoin",
    "adb",
    "syncthing_relay",
    "teamspeak3",
    "source_query",
    "silence",
    "unknown",
];

/// Its place in [`LABELS`]; `None` is what was not recognised.
#[must_use]
pub const fn place(protocol: Option<Protocol>) -> usize {
    match protocol {
        Some(Protocol::Tls) => 0,
        Some(Protocol::Quic) => 1,
        Some(Protocol::Http1) => 2,
        Some(Protocol::Http2) => 3,
        Some(Protocol::Ssh) => 4,
        Some(Protocol::Dtls) => 5,
        Some(Protocol::Socks4) => 6,
        Some(Protocol::Socks5) => 7,
        Some(Protocol::Rdp) => 8,
        Some(Protocol::Postgres) => 9,
        Some(Protocol::Mqtt) => 10,
        Some(Protocol::Xmpp) => 11,
        Some(Protocol::Wireguard) => 12,
        Some(Protocol::Openvpn) => 13,
        Some(Protocol::Dns) => 14,
        Some(Protocol::Stun) => 15,
        Some(Protocol::Minecraft) => 16,
        Some(Protocol::EternalTerminal) => 17,
        Some(Protocol::Smb) => 18,
        Some(Protocol::Redis) => 19,
        Some(Protocol::Amqp) => 20,
        Some(Protocol::Bittorrent) => 21,
        Some(Protocol::Syslog) => 22,
        Some(Protocol::Rsync) => 23,
        Some(Protocol::Git) => 24,
        Some(Protocol::Bitcoin) => 25,
        Some(Protocol::Adb) => 26,
        Some(Protocol::SyncthingRelay) => 27,
        Some(Protocol::Teamspeak3) => 28,
        Some(Protocol::SourceQuery) => 29,
        Some(Protocol::Silence) => 30,
        None => 31,
    }
}

/// Its word.
#[must_use]
pub fn label(protocol: Option<Protocol>) -> &'static str {
    LABELS.get(place(protocol)).copied().unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_names_of_the_variants() {
        let known = [
            (Protocol::Tls, "tls"),
            (Protocol::Dtls, "dtls"),
            (Protocol::EternalTerminal, "eternal_terminal"),
            (Protocol::Minecraft, "minecraft"),
            (Protocol::SyncthingRelay, "syncthing_relay"),
            (Protocol::Teamspeak3, "teamspeak3"),
            (Protocol::Silence, "silence"),
        ];
        for (protocol, word) in known {
            assert_eq!(label(Some(protocol)), word);
        }
        assert_eq!((label(None), place(None)), ("unknown", LABELS.len() - 1));
    }
}
