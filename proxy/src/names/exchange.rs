//! One question to one server: over UDP, and over TCP when the datagram does not hold the answer or may be forged.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Answer, Query, Reading};

/// Datagrams beside the answer that are borne with before the server is asked over TCP, where nobody can guess.
const MOST_STRANGE: usize = 16;
/// More than any server sends to who does not speak EDNS (RFC 1035 section 2.3.4: 512).
const LONGEST_DATAGRAM: usize = 4096;
/// Far more than the addresses of a name need.
const LONGEST_STREAMED: usize = 16 * 1024;

/// Why a server gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nothing that answers came within the time for one try.
    #[error("it does not answer")]
    Silent,
    /// The kernel could not reach it, or nothing listens there.
    #[error("it cannot be reached")]
    Unreachable,
    /// It said that it failed (SERVFAIL).
    #[error("it reports a failure")]
    Failure,
    /// It said that it will not answer, or cannot; with its code (REFUSED is 5).
    #[error("it refuses to answer (code {0})")]
    Refused(u8),
    /// What it said over TCP is no answer.
    #[error("its answer cannot be read")]
    Unreadable,
}

/// What a datagram settled.
enum Settled {
    Answer(Answer),
    Fault(Fault),
    /// Ask over TCP; if that is not to be had, this is the answer.
    AskOverTcp(Option<Answer>),
}

/// Asks `server`. Each transport may take `limit`.
pub(crate) async fn exchange(server: SocketAddr, query: &Query, limit: Duration) -> Result<Answer, Fault> {
    let bytes = query.bytes().ok_or(Fault::Unreadable)?;
    let second_best = match within(limit, over_udp(server, query, &bytes)).await? {
        Settled::Answer(answer) => return Ok(answer),
        Settled::Fault(fault) => return Err(fault),
        Settled::AskOverTcp(second_best) => second_best,
    };
    let streamed = within(limit, over_tcp(server, &bytes)).await;
    match streamed.map(|message| query.read(&message)) {
        Ok(Ok(Reading::Answer(answer) | Reading::AnswerInOtherCase(answer))) => Ok(answer),
        Ok(Ok(Reading::ServerFailure)) => Err(Fault::Failure),
        Ok(Ok(Reading::Refused(code))) => Err(Fault::Refused(code)),
        Ok(Ok(Reading::Truncated) | Err(_)) => Err(Fault::Unreadable),
        // A server without TCP that does not keep the case of letters: id and port were guessed right at least.
        Err(fault) => second_best.ok_or(fault),
    }
}

async fn within<T>(limit: Duration, asking: impl std::future::Future<Output = io::Result<T>>) -> Result<T, Fault> {
    match timeout(limit, asking).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err(Fault::Unreadable),
        Ok(Err(_)) => Err(Fault::Unreachable),
        Err(_) => Err(Fault::Silent),
    }
}

/// From a socket of its own, so that each query has a port of the kernel's choosing (RFC 5452 section 9.2) and the kernel
/// drops what other hosts send.
async fn over_udp(server: SocketAddr, query: &Query, bytes: &[u8]) -> io::Result<Settled> {
    let own: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    for _ in 0..MOST_STRANGE {
        let length = socket.recv(&mut buffer).await?;
        match query.read(buffer.get(..length).unwrap_or_default()) {
            Ok(Reading::Answer(answer)) => return Ok(Settled::Answer(answer)),
            Ok(Reading::AnswerInOtherCase(answer)) => return Ok(Settled::AskOverTcp(Some(answer))),
            Ok(Reading::Truncated) => return Ok(Settled::AskOverTcp(None)),
            Ok(Reading::ServerFailure) => return Ok(Settled::Fault(Fault::Failure)),
            Ok(Reading::Refused(code)) => return Ok(Settled::Fault(Fault::Refused(code))),
            // Not ours, or forged: the answer may still come.
            Err(_) => {}
        }
    }
    Ok(Settled::AskOverTcp(None))
}

/// RFC 1035 section 4.2.2: two octets of length before each message.
async fn over_tcp(server: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // One segment: some servers read no more at first (RFC 7766 section 8).
    let message = [length.to_be_bytes().as_slice(), bytes].concat();
    write_all(&stream, &message).await?;
    let mut length = [0; 2];
    read_exact(&stream, &mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > LONGEST_STREAMED {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut answer = vec![0; length];
    read_exact(&stream, &mut answer).await?;
    Ok(answer)
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn read_exact(stream: &TcpStream, mut room: &mut [u8]) -> io::Result<()> {
    while !room.is_empty() {
        stream.readable().await?;
        match stream.try_read(room) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
