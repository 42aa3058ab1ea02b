//! Load for proxies, bounded in count and time: `proxyload serve`, or one of the clients, which print one line of JSON.

#![forbid(unsafe_code)]

mod arguments;
mod bulk;
mod connect;
mod datagrams;
mod idle;
mod introduction;
mod ping;
mod poll;
mod serve;
mod udp;

use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "\
usage: proxyload serve [--address IP]
       proxyload bulk --to ADDRESS --seconds S --way up|down --count ADDRESS
       proxyload connect --to ADDRESS --seconds S --clients N [--payload FILE] [--introduce IP]
       proxyload ping --to ADDRESS --seconds S --clients N [--rate R]
       proxyload idle --to ADDRESS --clients N            (says `ready`, holds until its stdin ends)
       proxyload udp --to ADDRESS --seconds S --flows N --window N [--joined]
       proxyload flood --to ADDRESS --count ADDRESS --seconds S [--joined]
       proxyload carry --to ADDRESS --count ADDRESS --seconds S --flows N --burst N --rate R";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let arguments = match Arguments::read(words) {
        Ok(arguments) => arguments,
        Err(fault) => {
            eprintln!("proxyload: {fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let done = match mode.as_str() {
        "serve" => serve::serve(&arguments),
        "bulk" => bulk::run(&arguments),
        "connect" => connect::run(&arguments),
        "ping" => ping::run(&arguments),
        "idle" => idle::run(&arguments),
        "udp" => udp::echoed(&arguments),
        "flood" => udp::flooded(&arguments),
        "carry" => udp::carried(&arguments),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxyload {mode}: {error}");
            ExitCode::FAILURE
        }
    }
}
