//! Kept connections that ask 64 bytes and wait for 64: how long that takes. Each asks as soon as it was answered, or all
//! together so many times a second; then the time counts from when a question was due, though it had to wait for the
//! answer before, or a slow proxy would be asked less when it is slowest.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::arguments::Arguments;
use crate::poll::{now, Poll};

pub const SIZE: usize = 64;

struct Client {
    stream: TcpStream,
    /// When the question was to be asked that waits for its answer, or that is to be asked next.
    due: Instant,
    is_asking: bool,
    got: usize,
}

impl Client {
    fn ask(&mut self) -> io::Result<()> {
        self.is_asking = true;
        self.stream.write_all(&[0x61; SIZE])
    }
}

/// When clients ask: one after the other, again and again.
struct Pace {
    /// From one question of a client to its next; none where the answer is what it waits for.
    own: Option<Duration>,
    timer: TimerFd,
}

impl Pace {
    fn new(rate: Option<f64>, clients: usize) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        if let Some(rate) = rate {
            let every = Expiration::Interval(Duration::from_secs_f64(1.0 / rate).into());
            timer.set(every, TimerSetTimeFlags::empty())?;
        }
        Ok(Self { own: rate.map(|rate| Duration::from_secs_f64(clients as f64 / rate)), timer })
    }

    /// Those who are to ask by now do, unless they wait for an answer.
    fn ask_due(&self, clients: &mut [Client]) -> io::Result<()> {
        let _ = self.timer.wait(); // how often it rang says nothing
        let now = Instant::now();
        clients.iter_mut().filter(|client| !client.is_asking && client.due <= now).try_for_each(Client::ask)
    }

    /// The next question of one that was answered.
    fn answered(&self, client: &mut Client) -> io::Result<()> {
        client.is_asking = false;
        client.due = self.own.map_or_else(Instant::now, |own| client.due + own);
        if client.due <= Instant::now() {
            client.ask()?;
        }
        Ok(())
    }
}

pub fn run(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let count: usize = arguments.get("clients")?;
    let rate: Option<f64> = arguments.text("rate").map(|_| arguments.get("rate")).transpose()?;
    let mut poll = Poll::new()?;
    let mut clients = Vec::new();
    for number in 0..count {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        poll.add_reading(&stream, number)?;
        clients.push(Client { stream, due: Instant::now(), is_asking: false, got: 0 });
    }
    let pace = Pace::new(rate, count)?;
    poll.add_reading(&pace.timer, count)?;
    let mut times: Vec<u32> = Vec::new();
    let mut broken = 0;
    let (begun, warm) = (Instant::now(), seconds / 10);
    for (number, client) in clients.iter_mut().enumerate() {
        client.stream.set_nonblocking(true)?;
        client.due = begun + rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(number as f64 / rate));
    }
    pace.ask_due(&mut clients)?;
    while begun.elapsed() < seconds + warm && broken < count {
        for number in poll.wait(Duration::from_millis(100))? {
            let Some(client) = clients.get_mut(number) else {
                pace.ask_due(&mut clients)?;
                continue;
            };
            let mut room = [0; SIZE];
            match now(client.stream.read(&mut room[client.got..])) {
                Ok(None) => {}
                Ok(Some(more)) if more > 0 => {
                    client.got += more;
                    if client.got == SIZE {
                        if begun.elapsed() > warm {
                            times.push(client.due.elapsed().as_nanos().min(u128::from(u32::MAX)) as u32);
                        }
                        client.got = 0;
                        pace.answered(client)?;
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
