//! One stream for some seconds: how many bytes its receiver got.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::arguments::Arguments;

pub const PIECE: usize = 128 * 1024;

/// The first part of a transfer is the ramp of slow start, and does not count.
const RAMP: Duration = Duration::from_millis(100);

pub fn run(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    let (bytes, took) = match arguments.text("way") {
        Some("down") => receive(&mut stream, seconds)?,
        _ => send(&mut stream, seconds, arguments.get("count")?)?,
    };
    let gigabits = bytes as f64 * 8.0 / took.as_secs_f64() / 1e9;
    println!("{{\"bytes\": {bytes}, \"seconds\": {:.6}, \"gbit_s\": {gigabits:.4}}}", took.as_secs_f64());
    Ok(())
}

/// Not every proxy carries an end of one direction only, so the sink is asked by a way of its own.
fn send(stream: &mut TcpStream, seconds: Duration, counter: SocketAddr) -> io::Result<(u64, Duration)> {
    let piece = vec![0x5a; PIECE];
    let ramp = Instant::now();
    while ramp.elapsed() < RAMP {
        stream.write_all(&piece)?;
    }
    let (before, begun) = (counted(counter)?, Instant::now());
    while begun.elapsed() < seconds {
        stream.write_all(&piece)?;
    }
    Ok((counted(counter)? - before, begun.elapsed()))
}

/// What the backend has counted so far.
pub fn counted(counter: SocketAddr) -> io::Result<u64> {
    let mut count = [0; 8];
    TcpStream::connect(counter)?.read_exact(&mut count)?;
    Ok(u64::from_be_bytes(count))
}

fn receive(stream: &mut TcpStream, seconds: Duration) -> io::Result<(u64, Duration)> {
    let mut room = vec![0; PIECE];
    stream.write_all(b"g")?;
    let ramp = Instant::now();
    while ramp.elapsed() < RAMP {
        read_some(stream, &mut room)?;
    }
    let (mut bytes, begun) = (0, Instant::now());
    while begun.elapsed() < seconds {
        bytes += read_some(stream, &mut room)? as u64;
    }
    Ok((bytes, begun.elapsed()))
}

fn read_some(stream: &mut TcpStream, room: &mut [u8]) -> io::Result<usize> {
    match stream.read(room)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the source ended early")),
        count => Ok(count),
    }
}
