//! A name server that says what a test wants: over UDP by one function, over TCP by another.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use simple_dns::rdata::{RData, A, AAAA, SOA};
use simple_dns::{Name, Packet, ResourceRecord, CLASS, QTYPE, TYPE};
use tokio::io::Interest;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::spawn_local;

/// A query as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) bytes: Vec<u8>,
    pub(crate) name: String,
    pub(crate) is_v6: bool,
    pub(crate) from: SocketAddr,
    pub(crate) over_tcp: bool,
}

impl Asked {
    fn read(bytes: &[u8], from: SocketAddr, over_tcp: bool) -> Self {
        let packet = Packet::parse(bytes).expect("a query");
        let is_v6 = packet.questions[0].qtype == QTYPE::TYPE(TYPE::AAAA);
        Self { bytes: bytes.to_vec(), name: packet.questions[0].qname.to_string(), is_v6, from, over_tcp }
    }

    /// An answer to it, as `change` has it.
    pub(crate) fn reply(&self, change: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
        let query = Packet::parse(&self.bytes).unwrap();
        let mut packet = Packet::new_reply(query.id());
        packet.questions = query.questions.clone();
        change(&mut packet);
        packet.build_bytes_vec_compressed().unwrap()
    }

    /// An answer with these addresses, as far as they are of the kind asked for.
    pub(crate) fn addresses(&self, ttl: u32, addresses: &[&str]) -> Vec<u8> {
        self.reply(|packet| {
            for address in addresses {
                let data = match (address.parse().unwrap(), self.is_v6) {
                    (std::net::IpAddr::V4(address), false) => RData::A(A { address: address.into() }),
                    (std::net::IpAddr::V6(address), true) => RData::AAAA(AAAA { address: address.into() }),
                    (std::net::IpAddr::V4(_), true) | (std::net::IpAddr::V6(_), false) => continue,
                };
                let owner = Name::new(&self.name).unwrap().into_owned();
                packet.answers.push(ResourceRecord::new(owner, CLASS::IN, ttl, data));
            }
        })
    }

    /// An answer with this code, and an SOA by which it holds for `ttl` seconds.
    pub(crate) fn code(&self, code: u8, ttl: u32) -> Vec<u8> {
        let mut bytes = self.reply(|packet| {
            let (mname, rname) = (Name::new("ns.test").unwrap(), Name::new("root.test").unwrap());
            let soa = SOA { mname, rname, serial: 1, refresh: 1, retry: 1, expire: 1, minimum: ttl };
            packet.name_servers.push(ResourceRecord::new(Name::new("test").unwrap(), CLASS::IN, ttl, RData::SOA(soa)));
        });
        bytes[3] |= code;
        bytes
    }
}

/// What it says to a query, in one message or more or none.
type Answers = Rc<dyn Fn(&Asked) -> Vec<Vec<u8>>>;

/// The server. It runs as long as the test's `LocalSet`.
pub(crate) struct Liar {
    pub(crate) address: SocketAddr,
    heard: Rc<RefCell<Vec<Asked>>>,
}

impl Liar {
    /// A server that says the same over both transports.
    pub(crate) async fn start(answers: impl Fn(&Asked) -> Vec<Vec<u8>> + 'static) -> Self {
        let answers: Answers = Rc::new(answers);
        let heard = Rc::new(RefCell::new(Vec::new()));
        let (udp, tcp) = sockets().await;
        let address = udp.local_addr().unwrap();
        spawn_local(serve_udp(udp, Rc::clone(&answers), Rc::clone(&heard)));
        if let Some(tcp) = tcp {
            spawn_local(serve_tcp(tcp, answers, Rc::clone(&heard)));
        }
        Self { address, heard }
    }

    /// What it was asked so far.
    pub(crate) fn heard(&self) -> Vec<Asked> {
        self.heard.borrow().clone()
    }

    /// How often it was asked over UDP for A and for AAAA.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let heard = self.heard.borrow();
        let count = |is_v6| heard.iter().filter(|asked| asked.is_v6 == is_v6 && !asked.over_tcp).count();
        (count(false), count(true))
    }
}

/// Both transports at one port, as name servers have them.
async fn sockets() -> (UdpSocket, Option<TcpListener>) {
    for _ in 0..100 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, Some(tcp));
        }
    }
    panic!("no port is free for both transports");
}

async fn serve_udp(socket: UdpSocket, answers: Answers, heard: Rc<RefCell<Vec<Asked>>>) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Asked::read(&buffer[..length], from, false);
        heard.borrow_mut().push(asked.clone());
        for answer in answers(&asked) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, answers: Answers, heard: Rc<RefCell<Vec<Asked>>>) {
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        let (answers, heard) = (Rc::clone(&answers), Rc::clone(&heard));
        spawn_local(async move {
            let mut buffer = [0; 2048];
            let length = loop {
                stream.readable().await.unwrap();
                match stream.try_read(&mut buffer) {
                    Ok(length) => break length,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            };
            let asked = Asked::read(&buffer[2..length], from, true);
            heard.borrow_mut().push(asked.clone());
            for answer in answers(&asked) {
                let message = [u16::try_from(answer.len()).unwrap().to_be_bytes().as_slice(), &answer].concat();
                // In two pieces, so that nobody relies on one.
                for piece in [&message[..1], &message[1..]] {
                    stream.writable().await.unwrap();
                    if stream.try_write(piece).is_err() {
                        return;
                    }
                }
            }
            // Open until the client closes: an answer is whole by its length, not by the end.
            let _ = stream.ready(Interest::READABLE).await;
        });
    }
}
