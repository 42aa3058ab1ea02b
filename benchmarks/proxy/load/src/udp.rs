//! Datagrams of 1200 bytes: echoed within a window, as QUIC would send them; as many as can be sent; or at a rate.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::bulk::counted;
use crate::datagrams::{Datagrams, SIZE, TOGETHER};
use crate::poll::{now, Poll};

/// What has not come back by then is lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often a sender at a rate looks whether something is due.
const TICK: Duration = Duration::from_micros(200);

struct Flow {
    datagrams: Datagrams,
    in_flight: usize,
    last_move: Instant,
}

/// Each flow keeps a window of datagrams on their way there and back.
pub fn echoed(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let (count, window): (usize, usize) = (arguments.get("flows")?, arguments.get("window")?);
    let mut poll = Poll::new()?;
    let mut flows = Vec::new();
    for number in 0..count {
        let datagrams = Datagrams::new(connected(to)?, arguments.has("joined"))?;
        poll.add_reading(&datagrams.socket, number)?;
        flows.push(Flow { datagrams, in_flight: 0, last_move: Instant::now() });
    }
    let (mut came, mut lost) = (0u64, 0u64);
    let (begun, warm) = (Instant::now(), seconds / 10);
    let mut is_warm = false;
    for flow in &mut flows {
        fill(flow, window)?;
    }
    while begun.elapsed() < seconds + warm {
        for number in poll.wait(Duration::from_millis(50))? {
            let flow = &mut flows[number];
            let arrived: usize = now(flow.datagrams.receive())?.unwrap_or_default().iter().map(|one| one.count).sum();
            came += arrived as u64;
            flow.in_flight = flow.in_flight.saturating_sub(arrived);
            flow.last_move = Instant::now();
            fill(flow, window)?;
        }
        for flow in &mut flows {
            if flow.last_move.elapsed() > PATIENCE {
                lost += flow.in_flight as u64;
                (flow.in_flight, flow.last_move) = (0, Instant::now());
                fill(flow, window)?;
            }
        }
        if !is_warm && begun.elapsed() > warm {
            (came, lost, is_warm) = (0, 0, true);
        }
    }
    report(came, lost, begun.elapsed() - warm);
    Ok(())
}

/// Sends only when half of the window has come back: single datagrams would say nothing of batches.
fn fill(flow: &mut Flow, window: usize) -> io::Result<()> {
    if flow.in_flight > window / 2 {
        return Ok(());
    }
    while flow.in_flight < window {
        match now(flow.datagrams.send(window - flow.in_flight, None)) {
            Ok(Some(sent)) if sent > 0 => flow.in_flight += sent,
            Ok(_) => break,
            // What ICMP said of an earlier datagram.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends all the time; the backend, asked by a way of its own, says how many came.
pub fn flooded(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let counter: SocketAddr = arguments.get("count")?;
    let mut datagrams = Datagrams::new(connected(to)?, arguments.has("joined"))?;
    let (warm, begun) = (seconds / 10, Instant::now());
    let mut sent = 0;
    while begun.elapsed() < warm {
        now(datagrams.send(TOGETHER, None))?;
    }
    let (before, begun) = (counted(counter)?, Instant::now());
    while begun.elapsed() < seconds {
        sent += now(datagrams.send(TOGETHER, None))?.unwrap_or(0) as u64;
    }
    let (came, took) = (counted(counter)? - before, begun.elapsed());
    report(came, sent.saturating_sub(came), took);
    Ok(())
}

/// Sends at a rate, whatever becomes of it: `burst` datagrams of one flow after another. The backend says how many came.
pub fn carried(arguments: &Arguments) -> io::Result<()> {
    let (to, seconds) = (arguments.to()?, arguments.seconds()?);
    let counter: SocketAddr = arguments.get("count")?;
    let (count, burst, rate): (usize, usize, f64) =
        (arguments.get("flows")?, arguments.get("burst")?, arguments.get("rate")?);
    let mut flows = Vec::new();
    for _ in 0..count {
        let mut flow = Datagrams::new(connected(to)?, false)?;
        now(flow.send(1, None))?;
        flows.push(flow);
    }
    // Flows that begin are another matter.
    let (before, begun) = (settled(counter)?, Instant::now());
    let mut sent = 0u64;
    while begun.elapsed() < seconds {
        let due = (begun.elapsed().as_secs_f64() * rate) as u64;
        for flow in &mut flows {
            if sent < due {
                sent += now(flow.send(burst, None))?.unwrap_or(0) as u64;
            }
        }
        if sent >= due {
            thread::sleep(TICK);
        }
        flows.rotate_left(1);
    }
    let took = begun.elapsed();
    let came = settled(counter)? - before;
    report(came, sent.saturating_sub(came), took);
    Ok(())
}

/// What the backend has counted, once it counts no more.
fn settled(counter: SocketAddr) -> io::Result<u64> {
    let mut last = counted(counter)?;
    for _ in 0..50 {
        thread::sleep(PATIENCE / 2);
        let now = counted(counter)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    Ok(socket)
}

fn report(came: u64, lost: u64, took: Duration) {
    let per_s = came as f64 / took.as_secs_f64();
    let gigabits = per_s * SIZE as f64 * 8.0 / 1e9;
    println!("{{\"came\": {came}, \"lost\": {lost}, \"per_s\": {per_s:.1}, \"gbit_s\": {gigabits:.4}}}");
}
