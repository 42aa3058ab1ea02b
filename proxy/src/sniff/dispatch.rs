//! Which parser answers for which protocol, over which transport. What has no parser there is not spoken there.

use super::{
    adb, amqp, bitcoin, bittorrent, dns, eternal_terminal, git, hellos, http1, http2, minecraft, mqtt, openvpn,
    postgres, rdp, redis, rsync, smb, socks, source_query, ssh, stun, syncthing_relay, syslog, teamspeak3, wireguard,
    xmpp, Sniffed,
};
use crate::config::model::{Protocol, Transport};

/// Asks the first bytes of a connection.
type Stream = fn(&[u8]) -> Sniffed;
/// Asks the first datagrams of a flow.
enum Datagrams {
    /// The first one alone, which is whole: what needs more is not spoken.
    One(fn(&[u8]) -> Sniffed),
    /// All of them.
    Several(fn(&[Vec<u8>]) -> Sniffed),
}

/// What the first bytes of a connection say of one protocol. [`Protocol::Silence`] is not in the bytes.
pub(crate) fn of_stream(protocol: Protocol, bytes: &[u8]) -> Sniffed {
    stream(protocol).map_or(Sniffed::No, |sniff| sniff(bytes))
}

/// What the first datagrams of a flow say of one protocol.
pub(crate) fn of_datagrams(protocol: Protocol, all: &[Vec<u8>]) -> Sniffed {
    match (datagrams(protocol), all.first()) {
        (None, _) => Sniffed::No,
        (Some(_), None) => Sniffed::NeedMore,
        (Some(Datagrams::Several(sniff)), Some(_)) => sniff(all),
        (Some(Datagrams::One(sniff)), Some(first)) => match sniff(first) {
            Sniffed::NeedMore => Sniffed::No,
            answer @ (Sniffed::Yes(_) | Sniffed::No) => answer,
        },
    }
}

/// Whether the bytes leave no doubt of the protocol though its parser needs more for the name.
pub(crate) fn stream_is_certain(protocol: Protocol, bytes: &[u8]) -> bool {
    let http1 = protocol == Protocol::Http1 && http1::is_certain(bytes);
    let http2 = protocol == Protocol::Http2 && http2::is_certain(bytes);
    let minecraft = protocol == Protocol::Minecraft && minecraft::is_certain(bytes);
    let git = protocol == Protocol::Git && git::is_certain(bytes);
    http1 || http2 || minecraft || git
}

/// Whether the protocol can be spoken over the transport at all.
pub(crate) fn exists_over(protocol: Protocol, transport: Transport) -> bool {
    match transport {
        Transport::Tcp => protocol == Protocol::Silence || stream(protocol).is_some(),
        Transport::Udp => datagrams(protocol).is_some(),
    }
}

fn stream(protocol: Protocol) -> Option<Stream> {
    Some(match protocol {
        Protocol::Tls => hellos::tls,
        Protocol::Http1 => http1::sniff,
        Protocol::Http2 => http2::sniff,
        Protocol::Ssh => ssh::sniff,
        Protocol::Socks4 => socks::sniff4,
        Protocol::Socks5 => socks::sniff5,
        Protocol::Rdp => rdp::sniff,
        Protocol::Postgres => postgres::sniff,
        Protocol::Mqtt => mqtt::sniff,
        Protocol::Xmpp => xmpp::sniff,
        Protocol::Openvpn => openvpn::sniff,
        Protocol::Dns => dns::sniff,
        Protocol::Stun => stun::sniff,
        Protocol::Minecraft => minecraft::sniff,
        Protocol::EternalTerminal => eternal_terminal::sniff,
        Protocol::Smb => smb::sniff,
        Protocol::Redis => redis::sniff,
        Protocol::Amqp => amqp::sniff,
        Protocol::Bittorrent => bittorrent::sniff,
        Protocol::Syslog => syslog::sniff,
        Protocol::Rsync => rsync::sniff,
        Protocol::Git => git::sniff,
        Protocol::Bitcoin => bitcoin::sniff,
        Protocol::Adb => adb::sniff,
        Protocol::SyncthingRelay => syncthing_relay::sniff,
        Protocol::Quic
        | Protocol::Dtls
        | Protocol::Wireguard
        | Protocol::Teamspeak3
        | Protocol::SourceQuery
        | Protocol::Silence => return None,
    })
}

fn datagrams(protocol: Protocol) -> Option<Datagrams> {
    Some(match protocol {
        Protocol::Quic => Datagrams::Several(hellos::quic),
        Protocol::Dtls => Datagrams::Several(hellos::dtls),
        Protocol::Wireguard => Datagrams::One(wireguard::sniff),
        Protocol::Openvpn => Datagrams::One(openvpn::sniff_datagram),
        Protocol::Dns => Datagrams::One(dns::sniff_datagram),
        Protocol::Stun => Datagrams::One(stun::sniff_datagram),
        Protocol::Minecraft => Datagrams::One(minecraft::sniff_datagram),
        Protocol::Bittorrent => Datagrams::One(bittorrent::sniff_datagram),
        Protocol::Syslog => Datagrams::One(syslog::sniff),
        Protocol::Teamspeak3 => Datagrams::One(teamspeak3::sniff_datagram),
        Protocol::SourceQuery => Datagrams::One(source_query::sniff_datagram),
        Protocol::Tls
        | Protocol::Http1
        | Protocol::Http2
        | Protocol::Ssh
        | Protocol::Socks4
        | Protocol::Socks5
        | Protocol::Rdp
        | Protocol::Postgres
        | Protocol::Mqtt
        | Protocol::Xmpp
        | Protocol::EternalTerminal
        | Protocol::Smb
        | Protocol::Redis
        | Protocol::Amqp
        | Protocol::Rsync
        | Protocol::Git
        | Protocol::Bitcoin
        | Protocol::Adb
        | Protocol::SyncthingRelay
        | Protocol::Silence => return None,
    })
}
