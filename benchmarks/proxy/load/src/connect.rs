//! Short connections: connect, say something, get one byte, close; so many clients at once.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::arguments::Arguments;
use crate::introduction::Introductions;
use crate::poll::{begin_connect, now, Poll};

/// Who has got no answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);

struct Client {
    socket: Socket,
    begun: Instant,
    has_said: bool,
}

pub fn run(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let clients: usize = arguments.get("clients")?;
    let payload = match arguments.text("payload") {
        Some(file) => std::fs::read(file)?,
        None => b"x".to_vec(),
    };
    let network = arguments.text("introduce").map(str::parse).transpose();
    let network = network.map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "--introduce: an IPv4 address"))?;
    let mut speech = Speech { payload, introductions: network.map(Introductions::of), to };
    let mut poll = Poll::new()?;
    let mut seats: Vec<Option<Client>> = Vec::new();
    for seat in 0..clients {
        seats.push(begin(&poll, to, seat).ok());
    }
    let (mut done, mut failed) = (0u64, 0u64);
    let mut first_fault = None;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < seconds {
        for seat in poll.wait(Duration::from_millis(100))? {
            let Some(client) = seats[seat].as_mut() else { continue };
            match step(client, &mut speech) {
                Ok(false) => continue,
                Ok(true) => {
                    done += 1;
                    times.push(client.begun.elapsed().as_nanos() as u64);
                }
                Err(error) => {
                    failed += 1;
                    first_fault.get_or_insert(error.to_string());
                }
            }
            seats[seat] = begin(&poll, to, seat).ok();
        }
        for (seat, client) in seats.iter_mut().enumerate() {
            if client.as_ref().map_or(true, |client| client.begun.elapsed() > PATIENCE) {
                failed += 1;
                *client = begin(&poll, to, seat).ok();
            }
        }
    }
    let took = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).map_or(0.0, |ns| *ns as f64 / 1000.0);
    println!(
        "{{\"done\": {done}, \"failed\": {failed}, \"seconds\": {took:.6}, \"per_s\": {:.1}, \"p50_us\": {:.1}, \
         \"p99_us\": {:.1}, \"fault\": {:?}}}",
        done as f64 / took,
        quantile(0.5),
        quantile(0.99),
        first_fault.unwrap_or_default(),
    );
    Ok(())
}

fn begin(poll: &Poll, to: SocketAddr, seat: usize) -> io::Result<Client> {
    let socket = begin_connect(to)?;
    poll.add(&socket, seat)?;
    Ok(Client { socket, begun: Instant::now(), has_said: false })
}

/// What a client says.
struct Speech {
    payload: Vec<u8>,
    introductions: Option<Introductions>,
    to: SocketAddr,
}

impl Speech {
    fn say(&mut self, socket: &Socket) -> io::Result<Option<usize>> {
        let mut socket = socket;
        match &mut self.introductions {
            None => now(socket.write(&self.payload)),
            Some(introductions) => {
                let mut whole = introductions.next(self.to).to_vec();
                whole.extend_from_slice(&self.payload);
                now(socket.write(&whole))
            }
        }
    }
}

/// Whether the client has its answer.
fn step(client: &mut Client, speech: &mut Speech) -> io::Result<bool> {
    if !client.has_said {
        if let Err(error) = client.socket.peer_addr() {
            if error.kind() != io::ErrorKind::NotConnected {
                return Err(error);
            }
            return match client.socket.take_error()? {
                Some(error) => Err(error),
                None => Ok(false),
            };
        }
        if speech.say(&client.socket)?.is_none() {
            return Ok(false);
        }
        client.has_said = true;
        // The answer cannot be here yet.
        return Ok(false);
    }
    let mut byte = [0; 16];
    match now((&client.socket).read(&mut byte))? {
        None => Ok(false),
        Some(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer")),
        Some(_) => Ok(true),
    }
}
