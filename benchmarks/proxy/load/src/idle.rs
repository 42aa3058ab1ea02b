//! Connections that were used once and then wait.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::arguments::Arguments;

/// Opened at once, so that no backlog overflows.
const TOGETHER: usize = 100;

pub fn run(arguments: &Arguments) -> io::Result<()> {
    let to = arguments.to()?;
    let count: usize = arguments.get("clients")?;
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let first = held.len();
        for _ in 0..TOGETHER.min(count - first) {
            let mut stream = TcpStream::connect(to)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"x")?;
            held.push(stream);
        }
        for stream in &mut held[first..] {
            stream.read_exact(&mut [0])?;
        }
    }
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
