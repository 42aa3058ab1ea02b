//! Kept connections, each asking 64 bytes and waiting for 64: how long that takes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::poll::{now, Poll};

pub const SIZE: usize = 64;

struct Client {
    stream: TcpStream,
    asked: Instant,
    got: usize,
}

pub fn run(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let count: usize = arguments.get("clients")?;
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for number in 0..count {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.write_all(&[0x61; SIZE])?;
        stream.set_nonblocking(true)?;
        poll.add_reading(&stream, number)?;
        clients.push(Client { stream, asked: Instant::now(), got: 0 });
    }
    let mut times: Vec<u32> = Vec::new();
    let mut broken = 0;
    let (begun, warm) = (Instant::now(), seconds / 10);
    while begun.elapsed() < seconds + warm && broken < count {
        for number in poll.wait(Duration::from_millis(100))? {
            let client = &mut clients[number];
            let mut room = [0; SIZE];
            match now(client.stream.read(&mut room[client.got..])) {
                Ok(None) => {}
                Ok(Some(more)) if more > 0 => {
                    client.got += more;
                    if client.got == SIZE {
                        if begun.elapsed() > warm {
                            times.push(client.asked.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
                        }
                        (client.got, client.asked) = (0, Instant::now());
                        client.stream.write_all(&[0x61; SIZE])?;
                    }
                }
                Ok(Some(_)) | Err(_) => {
                    broken += 1;
                    client.stream = TcpStream::connect(to)?;
                }
            }
        }
    }
    times.sort_unstable();
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).map_or(0.0, |ns| f64::from(*ns) / 1000.0);
    println!(
        "{{\"done\": {}, \"broken\": {broken}, \"per_s\": {:.1}, \"p50_us\": {:.2}, \"p99_us\": {:.2}}}",
        times.len(),
        times.len() as f64 / seconds.as_secs_f64(),
        quantile(0.5),
        quantile(0.99),
    );
    Ok(())
}
