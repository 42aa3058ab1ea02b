//! The backend: one port for each thing that a client may want.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::arguments::Arguments;
use crate::bulk::PIECE;
use crate::datagrams::Datagrams;
use crate::poll::{now, Poll};

/// Counts what it reads; the second port tells that count.
const SINK: u16 = 7000;
const SUNK: u16 = 7009;
/// Sends for as long as it is read.
const SOURCE: u16 = 7001;
/// Answers one byte, once.
const ANSWER: u16 = 7002;
/// Sends back what it reads.
const ECHO: u16 = 7003;
/// UDP: counts datagrams. TCP: tells that count.
const COUNTED: u16 = 7010;
/// UDP: sends back what it reads; at the second port as the kernel joins and cuts it.
const UDP_ECHO: u16 = 7011;
const UDP_ECHO_JOINED: u16 = 7012;
/// TCP: tells from how many endpoints the first of the two was spoken to.
const SEEN: u16 = 7013;

const BACKLOG: i32 = 4096;

pub fn serve(arguments: &Arguments) -> io::Result<()> {
    let ip = arguments.text("address").map_or(Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), str::parse);
    let ip = ip.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "--address: an IP address"))?;
    let at = |port| SocketAddr::new(ip, port);
    let (count, sunk) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (sink, source) = (listen(at(SINK))?, listen(at(SOURCE))?);
    let (counter, sunk_counter) = (listen(at(COUNTED))?, listen(at(SUNK))?);
    let (seen_counter, seen) = (listen(at(SEEN))?, Arc::new(AtomicU64::new(0)));
    let told_seen = Arc::clone(&seen);
    let (answers, echoes) = (listen(at(ANSWER))?, listen(at(ECHO))?);
    let counted = UdpSocket::bind(at(COUNTED))?;
    let (plain, joined) = (UdpSocket::bind(at(UDP_ECHO))?, UdpSocket::bind(at(UDP_ECHO_JOINED))?);
    let (told, told_sunk) = (Arc::clone(&count), Arc::clone(&sunk));
    let parts: Vec<Box<dyn FnOnce() -> io::Result<()> + Send>> = vec![
        Box::new(move || each(&sink, move |one| swallow(one, &sunk))),
        Box::new(move || each(&source, pour)),
        Box::new(move || each(&counter, move |one| tell(one, &told))),
        Box::new(move || each(&sunk_counter, move |one| tell(one, &told_sunk))),
        Box::new(move || each(&seen_counter, move |one| tell(one, &told_seen))),
        Box::new(move || converse(&answers, true)),
        Box::new(move || converse(&echoes, false)),
        Box::new(move || count_datagrams(counted, &count)),
        Box::new(move || echo_datagrams(plain, false, &seen)),
        Box::new(move || echo_datagrams(joined, true, &AtomicU64::new(0))),
    ];
    let running: Vec<_> = parts.into_iter().map(thread::spawn).collect();
    println!("ready");
    for part in running {
        part.join().map_err(|_| io::Error::other("a part of the backend panicked"))??;
    }
    Ok(())
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn each(
    listener: &TcpListener,
    serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let serve = serve.clone();
        // How one ends says nothing of the others.
        thread::spawn(move || drop(serve(stream)));
    }
}

fn tell(mut stream: TcpStream, count: &AtomicU64) -> io::Result<()> {
    stream.write_all(&count.load(Ordering::Relaxed).to_be_bytes())
}

fn swallow(mut stream: TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut room = vec![0; PIECE];
    loop {
        match stream.read(&mut room)? {
            0 => return Ok(()),
            more => count.fetch_add(more as u64, Ordering::Relaxed),
        };
    }
}

fn pour(mut stream: TcpStream) -> io::Result<()> {
    let piece = vec![0xa5; PIECE];
    loop {
        stream.write_all(&piece)?;
    }
}

/// Short words of many clients in one thread.
fn converse(listener: &TcpListener, is_once: bool) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add_reading(listener, usize::MAX)?;
    let mut clients: Vec<Option<(TcpStream, bool)>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut room = [0; 16_384];
    loop {
        for number in poll.wait(Duration::from_secs(3600))? {
            if number == usize::MAX {
                while let Ok(Some((stream, _))) = now(listener.accept()) {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let seat = free.pop().unwrap_or_else(|| {
                        clients.push(None);
                        clients.len() - 1
                    });
                    poll.add_reading(&stream, seat)?;
                    clients[seat] = Some((stream, false));
                }
                continue;
            }
            let Some((stream, has_answered)) = &mut clients[number] else { continue };
            let goes_on = match now(stream.read(&mut room)) {
                Ok(None) => true,
                Ok(Some(0)) | Err(_) => false,
                Ok(Some(count)) if is_once => {
                    let is_answered = *has_answered || stream.write_all(&room[..1]).is_ok();
                    *has_answered = true;
                    is_answered && count > 0
                }
                Ok(Some(count)) => stream.write_all(&room[..count]).is_ok(),
            };
            if !goes_on {
                clients[number] = None;
                free.push(number);
            }
        }
    }
}

fn count_datagrams(socket: UdpSocket, count: &AtomicU64) -> io::Result<()> {
    let mut datagrams = Datagrams::new(socket, true)?;
    let mut poll = Poll::new()?;
    poll.add_reading(&datagrams.socket, 0)?;
    loop {
        poll.wait(Duration::from_secs(3600))?;
        let arrived: usize = now(datagrams.receive())?.unwrap_or_default().iter().map(|one| one.count).sum();
        count.fetch_add(arrived as u64, Ordering::Relaxed);
    }
}

fn echo_datagrams(socket: UdpSocket, is_joined: bool, seen: &AtomicU64) -> io::Result<()> {
    let mut peers = HashSet::new();
    let mut datagrams = Datagrams::new(socket, is_joined)?;
    let mut poll = Poll::new()?;
    poll.add_reading(&datagrams.socket, 0)?;
    loop {
        poll.wait(Duration::from_secs(3600))?;
        // Consecutive datagrams of one client are answered together.
        let mut owed: Option<(nix::sys::socket::SockaddrIn, usize)> = None;
        for arrival in now(datagrams.receive())?.unwrap_or_default() {
            let Some(from) = arrival.from else { continue };
            if peers.insert(from) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
            match &mut owed {
                Some((to, count)) if *to == from => *count += arrival.count,
                _ => {
                    if let Some((to, count)) = owed.replace((from, arrival.count)) {
                        answer(&mut datagrams, to, count);
                    }
                }
            }
        }
        if let Some((to, count)) = owed {
            answer(&mut datagrams, to, count);
        }
    }
}

fn answer(datagrams: &mut Datagrams, to: nix::sys::socket::SockaddrIn, mut count: usize) {
    while count > 0 {
        match datagrams.send(count, Some(&to)) {
            Ok(sent) if sent > 0 => count -= sent.min(count),
            // No room, or nobody there: UDP may lose.
            _ => return,
        }
    }
}
