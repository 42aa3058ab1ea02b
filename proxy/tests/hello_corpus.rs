//! Hellos of real clients, whole, cut at every byte, in other records and in other orders: each gives what its list expects.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // these are tests, helpers too

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use edgeproxy::sniff::client_hello::ClientHello;
use edgeproxy::sniff::{dtls, quic, tls, Found, Sniffed};

/// One line of a list.
struct Sample {
    path: PathBuf,
    name: Option<String>,
    /// `None`: many, not spelt out.
    alpn: Option<Vec<Vec<u8>>>,
    ech: bool,
    post_quantum: bool,
}

impl Sample {
    fn file_name(&self) -> &str {
        self.path.file_name().unwrap().to_str().unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    fn datagrams(&self) -> Vec<Vec<u8>> {
        let text = String::from_utf8(self.bytes()).unwrap();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
    }

    fn check_found(&self, answer: &Sniffed) {
        let Sniffed::Yes(found) = answer else { panic!("{}: {answer:?}", self.file_name()) };
        let alpn = self.alpn.clone().unwrap_or_else(|| found.alpn.clone());
        let expected = Found { name: self.name.clone(), alpn, ech: self.ech, post_quantum: self.post_quantum };
        assert_eq!(*found, expected, "{}", self.file_name());
        assert!(self.alpn.is_some() || found.alpn.len() >= 20, "{}", self.file_name());
    }

    fn check_hello(&self, hello: Option<&ClientHello>) {
        let is_post_quantum = hello.is_some_and(|hello| hello.has_post_quantum_key_share);
        assert_eq!(is_post_quantum, self.post_quantum, "{}", self.file_name());
    }
}

/// The list of a folder; it names every file there, and each client of `clients`.
fn samples(folder: &str, clients: &[&str]) -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
    let list = std::fs::read_to_string(folder.join("expectations.txt")).unwrap();
    let samples: Vec<Sample> =
        list.lines().filter(|line| !line.starts_with('#')).map(|line| read(&folder, line)).collect();
    let listed: BTreeSet<String> = samples.iter().map(|sample| sample.file_name().to_owned()).collect();
    let present: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "expectations.txt")
        .collect();
    assert_eq!(listed, present);
    for client in clients {
        assert!(listed.iter().any(|name| name.starts_with(client)), "no sample of {client}");
    }
    samples
}

fn read(folder: &Path, line: &str) -> Sample {
    let (fields, _how) = line.split_once(" | ").unwrap();
    let [file, name, alpn, ech, post_quantum] = fields.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let flag = |field: &str, word: &str| {
        assert!(field == word || field == "-", "{line}");
        field == word
    };
    let protocols = |list: &str| list.split(',').map(|name| name.as_bytes().to_vec()).collect();
    Sample {
        path: folder.join(file),
        name: (name != "-").then(|| name.to_owned()),
        alpn: match alpn {
            "*" => None,
            "-" => Some(Vec::new()),
            list => Some(protocols(list)),
        },
        ech: flag(ech, "ech"),
        post_quantum: flag(post_quantum, "pq"),
    }
}

fn tls_samples() -> Vec<Sample> {
    let clients = [
        "curl_openssl",
        "openssl_s_client",
        "gnutls_cli",
        "go_crypto_tls",
        "python_ssl",
        "chromium",
        "firefox.bin",
        "firefox_like",
        "java_jsse",
        "node_",
        "rustls",
    ];
    samples("client_hello", &clients)
}

fn quic_samples() -> Vec<Sample> {
    samples("quic_initial", &["aioquic_v1", "aioquic_v2", "chromium", "firefox", "quic_go", "rfc9001", "rfc9369"])
}

fn dtls_samples() -> Vec<Sample> {
    samples("dtls_client_hello", &["openssl_dtls10", "openssl_dtls12", "gnutls_dtls"])
}

/// The handshake stream in whole records.
fn handshake(mut stream: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [_, _, _, high, low, rest @ ..] = stream {
        let (part, after) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        message.extend_from_slice(part);
        stream = after;
    }
    message
}

fn records(message: &[u8], size: usize, minor: u8) -> Vec<u8> {
    let head = |part: &[u8]| [&[22, 3, minor], &u16::try_from(part.len()).unwrap().to_be_bytes()[..]].concat();
    message.chunks(size).flat_map(|part| [head(part), part.to_vec()].concat()).collect()
}

#[test]
fn tls_hellos_say_what_their_list_expects() {
    for sample in tls_samples() {
        let mut reader = tls::HelloReader::default();
        sample.check_found(&reader.push(&sample.bytes()));
        sample.check_hello(reader.hello());
    }
}

#[test]
fn tls_hellos_need_more_at_every_cut_and_stay_answered() {
    for sample in tls_samples() {
        let stream = [sample.bytes(), b"what follows".to_vec()].concat();
        let mut reader = tls::HelloReader::default();
        let mut is_answered = false;
        for cut in 0..=stream.len() {
            let answer = tls::parse(&stream[..cut]);
            let bit_by_bit = reader.push(stream.get(cut.wrapping_sub(1)..cut).unwrap_or_default());
            assert_eq!(answer, bit_by_bit, "{} {cut}", sample.file_name());
            if is_answered || answer != Sniffed::NeedMore {
                sample.check_found(&answer);
                is_answered = true;
            }
        }
        // A hello in the form of SSL 2 is known by its first bytes; every other by its last.
        let is_early = sample.file_name() == "ssl2_form.bin";
        assert_eq!(tls::parse(&stream[..sample.bytes().len() - 1]) == Sniffed::NeedMore, !is_early);
    }
}

#[test]
fn tls_hellos_say_the_same_in_records_of_every_size() {
    for sample in tls_samples().into_iter().filter(|sample| sample.file_name() != "ssl2_form.bin") {
        let message = handshake(&sample.bytes());
        for size in 1..=message.len() {
            let stream = records(&message, size, u8::try_from(size % 5).unwrap());
            sample.check_found(&tls::parse(&stream));
            assert_eq!(tls::parse(&stream[..stream.len() - 1]), Sniffed::NeedMore);
        }
        for size in [1, 2, 3, 100] {
            let stream = records(&message, size, 1);
            let mut reader = tls::HelloReader::default();
            let (last, before) = stream.split_last().unwrap();
            assert!(before.iter().all(|&byte| reader.push(&[byte]) == Sniffed::NeedMore));
            sample.check_found(&reader.push(&[*last]));
        }
    }
}

#[test]
fn quic_hellos_say_what_their_list_expects_in_every_order_of_their_datagrams() {
    for sample in quic_samples() {
        let mut datagrams = sample.datagrams();
        for _ in 0..datagrams.len() {
            datagrams.rotate_left(1);
            for _ in 0..2 {
                datagrams.reverse();
                let mut reader = quic::InitialReader::default();
                let (last, before) = datagrams.split_last().unwrap();
                for datagram in before {
                    assert_eq!(reader.push(datagram), Sniffed::NeedMore, "{}", sample.file_name());
                }
                sample.check_found(&reader.push(last));
                sample.check_hello(reader.hello());
            }
        }
    }
}

#[test]
fn a_quic_datagram_that_is_cut_off_says_nothing() {
    for sample in quic_samples() {
        let datagram = sample.datagrams().remove(0);
        for cut in 0..datagram.len() {
            let answer = quic::InitialReader::default().push(&datagram[..cut]);
            assert!(!matches!(answer, Sniffed::Yes(_)), "{} {cut}", sample.file_name());
            assert!(cut >= quic::SHORTEST_INITIAL_DATAGRAM || answer == Sniffed::No);
        }
    }
}

#[test]
fn post_quantum_hellos_take_more_than_one_datagram() {
    let is_there = |sample: &Sample| sample.post_quantum && sample.datagrams().len() > 1;
    assert!(quic_samples().iter().any(is_there));
    assert!(tls_samples().iter().any(|sample| sample.post_quantum && sample.bytes().len() > 1700));
}

#[test]
fn dtls_hellos_say_what_their_list_expects_and_nothing_when_cut_off() {
    for sample in dtls_samples() {
        let mut datagrams = sample.datagrams();
        for _ in 0..datagrams.len() {
            datagrams.rotate_left(1);
            let mut reader = dtls::HelloReader::default();
            let (last, before) = datagrams.split_last().unwrap();
            for datagram in before {
                assert_eq!(reader.push(datagram), Sniffed::NeedMore, "{}", sample.file_name());
            }
            sample.check_found(&reader.push(last));
            sample.check_hello(reader.hello());
        }
        let datagram = &datagrams[0];
        for cut in 0..datagram.len() {
            assert_eq!(dtls::HelloReader::default().push(&datagram[..cut]), Sniffed::No);
        }
    }
}
