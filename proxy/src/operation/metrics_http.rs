//! `GET /metrics` and `GET /ready` over HTTP/1.1: one request a connection, everything bounded.

use std::io;
use std::net as std_net;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::bounded_io::{read_some, write_all};
use super::metrics;
use super::state::State;

/// Bytes of a request's head, if nobody says otherwise.
pub(super) const MOST_HEAD: usize = 8 * 1024;

/// What those who ask may take.
#[derive(Debug, Clone, Copy)]
pub struct MetricsBounds {
    /// Bytes of a request's head.
    pub head: usize,
    /// Connections at once.
    pub clients: usize,
    /// From accept until the request is whole, and again until the answer is taken.
    pub patience: Duration,
}

impl Default for MetricsBounds {
    fn default() -> Self {
        Self { head: MOST_HEAD, clients: 16, patience: Duration::from_secs(5) }
    }
}

/// Listens, before the sandbox is entered.
pub fn listen(address: std_net::SocketAddr) -> io::Result<std_net::TcpListener> {
    let listener = std_net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers until it is dropped. On the control thread's runtime.
pub async fn serve(listener: TcpListener, state: Arc<Mutex<State>>, bounds: MetricsBounds) {
    let mut clients = tokio::task::JoinSet::new();
    let room = Arc::new(Semaphore::new(bounds.clients));
    loop {
        let accepted = listener.accept().await;
        while clients.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            sleep(Duration::from_millis(100)).await; // no descriptors: others give some back
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let state = Arc::clone(&state);
        clients.spawn(async move {
            let _ = answer(stream, &state, bounds).await; // a client that went away is no fault of anybody
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, state: &Mutex<State>, bounds: MetricsBounds) -> io::Result<()> {
    let asked = timeout(bounds.patience, ask(&mut stream, bounds.head)).await??;
    let response = match asked {
        Asked::Nothing => return Ok(()),
        Asked::Metrics => {
            let text = metrics::render(&mut state.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            response("200 OK", "text/plain; version=0.0.4; charset=utf-8", "", &text)
        }
        Asked::Ready if state.lock().unwrap_or_else(PoisonError::into_inner).draining => {
            response("503 Service Unavailable", "text/plain", "", "draining\n")
        }
        Asked::Ready => response("200 OK", "text/plain", "", "ready\n"),
        Asked::OtherPath => response("404 Not Found", "text/plain", "", "only /metrics and /ready are here\n"),
        Asked::OtherMethod => {
            response("405 Method Not Allowed", "text/plain", "Allow: GET\r\n", "only GET is allowed\n")
        }
        Asked::TooMuch => response("431 Request Header Fields Too Large", "text/plain", "", "too long a request\n"),
        Asked::Nonsense => response("400 Bad Request", "text/plain", "", "not a request\n"),
    };
    timeout(bounds.patience, write_all(&mut stream, response.as_bytes())).await?
}

/// What a request's head asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Metrics,
    /// Whether clients should be led here.
    Ready,
    OtherPath,
    OtherMethod,
    TooMuch,
    Nonsense,
    Nothing,
}

async fn ask(stream: &mut TcpStream, most: usize) -> io::Result<Asked> {
    let mut head = Vec::new();
    loop {
        if let Some(asked) = parse(&head, most) {
            return Ok(asked);
        }
        if read_some(stream, &mut head).await? == 0 {
            return Ok(Asked::Nothing);
        }
    }
}

/// `None`: the head is not whole.
pub(super) fn parse(head: &[u8], most: usize) -> Option<Asked> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => (head.len() > most).then_some(Asked::TooMuch),
        Ok(httparse::Status::Complete(_)) if request.method != Some("GET") => Some(Asked::OtherMethod),
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.and_then(|path| path.split('?').next());
            Some(match path {
                Some("/metrics") => Asked::Metrics,
                Some("/ready") => Asked::Ready,
                Some(_) | None => Asked::OtherPath,
            })
        }
        Err(httparse::Error::TooManyHeaders) => Some(Asked::TooMuch),
        Err(_) => Some(Asked::Nonsense),
    }
}

fn response(status: &str, kind: &str, extra: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{extra}Connection: close\r\n\r\n{body}"
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::SystemTime;

    use super::super::deny::DenyList;
    use super::super::metrics_check;
    use super::*;

    const SLOW: Duration = Duration::from_secs(30);

    /// Serves while `ask` runs in a thread of its own.
    fn beside<T: Send + 'static>(
        bounds: MetricsBounds,
        ask: impl FnOnce(std_net::SocketAddr) -> T + Send + 'static,
    ) -> T {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let now = (Instant::now(), SystemTime::now());
        let state = Arc::new(Mutex::new(State::new(DenyList::new(&[]), None, 1, now)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let asking = tokio::task::spawn_blocking(move || ask(address));
            tokio::select! {
                answer = asking => answer.unwrap(),
                () = serve(TcpListener::from_std(listener).unwrap(), state, bounds) => unreachable!(),
            }
        })
    }

    fn exchange(address: std_net::SocketAddr, pieces: &[&[u8]]) -> String {
        let mut stream = std_net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SLOW)).unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in pieces {
            if stream.write_all(piece).is_err() {
                break; // refused before all was said
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // a reset may follow the answer
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn prometheus_gets_the_text() {
        let answer = beside(MetricsBounds::default(), |address| {
            let bytes: Vec<&[u8]> = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n".chunks(1).collect();
            exchange(address, &bytes)
        });
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        assert!(metrics_check::read(body).contains_key("edgeproxy_workers"));
    }

    #[test]
    fn everything_else_is_refused_in_words_of_http() {
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "x".repeat(20_000));
        let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
        let cases = [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", "404"),
            ("GET /ready/ HTTP/1.1\r\n\r\n", "404"),
            ("POST /ready HTTP/1.1\r\n\r\n", "405"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("HEAD /metrics HTTP/1.1\r\n\r\n", "405"),
            ("\x16\x03\x01\r\n\r\n", "400"),
            (long.as_str(), "431"),
            (many.as_str(), "431"),
        ];
        for (request, status) in cases {
            let request = request.to_owned();
            let answer = beside(MetricsBounds::default(), move |address| exchange(address, &[request.as_bytes()]));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {answer}");
        }
    }

    #[test]
    fn who_says_nothing_is_left_after_a_while() {
        let bounds = MetricsBounds { patience: Duration::from_millis(30), ..MetricsBounds::default() };
        assert_eq!(beside(bounds, |address| exchange(address, &[b"GET /metr"])), "");
    }

    #[test]
    fn at_most_so_many_are_served_at_once() {
        let bounds = MetricsBounds { clients: 1, ..MetricsBounds::default() };
        beside(bounds, |address| {
            let mut first = std_net::TcpStream::connect(address).unwrap();
            // The second is closed at once; when it is, the first has surely been accepted.
            assert_eq!(exchange(address, &[]), "");
            first.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut answer = String::new();
            first.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 404"));
        });
    }

    #[test]
    fn each_beginning_of_a_request_is_not_yet_one() {
        let whole = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut], 8192), None, "{cut}");
        }
        assert_eq!(parse(whole, 8192), Some(Asked::Metrics));
    }
}
