//! Last words to receivers that are slow: they get them, but nobody is waited for without end.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as Blocking};
use std::os::fd::AsFd;
use std::time::Duration;
use std::{panic, thread};

use tokio::net::TcpStream;
use tokio::select;

use super::super::allowance::Allowance;
use super::super::direction::Direction;
use super::super::scratch::{Scratch, KEPT_BUDGET};
use super::{last_words, Longest};
use crate::kernel::unsent;

fn unbounded() -> Allowance {
    Allowance::of(None, std::sync::Arc::default())
}

const LONG: Duration = Duration::from_secs(600);

/// None of these tests waits for what is usual.
const SHORT: Longest = Longest { in_all: Duration::from_secs(2), when_crowded: Duration::from_millis(50) };

/// A sender that was reset, and a receiver whose kernel takes no more.
struct Bench {
    sender: TcpStream,
    receiver: TcpStream,
    /// The receiver's far end, which has read nothing yet.
    far: Blocking,
}

impl Bench {
    fn new() -> Self {
        let ((near_sender, sender), (receiver, far)) = (pair(), pair());
        socket2::SockRef::from(&sender).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(sender);
        receiver.set_nonblocking(true).expect("non-blocking");
        while (&receiver).write(&[7; 65_536]).is_ok() {}
        Self { sender: adopt(near_sender), receiver: adopt(receiver), far }
    }

    async fn last_words(&mut self, way: &mut Direction, scratch: &Scratch, is_crowded: bool) {
        let Self { sender, receiver, .. } = self;
        last_words(sender, receiver, way, scratch, (LONG, SHORT), || is_crowded, |_| ()).await;
    }
}

fn pair() -> (Blocking, Blocking) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let one = Blocking::connect(listener.local_addr().expect("its address")).expect("a connection");
    (one, listener.accept().expect("its other end").0)
}

fn adopt(stream: Blocking) -> TcpStream {
    stream.set_nonblocking(true).expect("non-blocking");
    TcpStream::from_std(stream).expect("registered")
}

fn run<F: std::future::Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

#[test]
fn a_receiver_that_takes_a_little_again_and_again_is_not_waited_for_without_end() {
    run(async {
        let (mut bench, scratch) = (Bench::new(), Scratch::new());
        let mut way = Direction::beginning_with(vec![8; 65_536], 0, unbounded(), &scratch);
        let mut far = bench.far.try_clone().expect("a descriptor");
        let reader = thread::spawn(move || {
            let mut some = [0; 65_536];
            while far.read(&mut some).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(500)); // a slow reader is what is tested
            }
        });
        bench.last_words(&mut way, &scratch, false).await;
        assert!(unsent(bench.receiver.as_fd()).expect("asked") > 0, "it was not waited until all was taken");
        socket2::SockRef::from(&bench.receiver).set_linger(Some(Duration::ZERO)).expect("linger");
        drop(bench);
        reader.join().unwrap_or_else(|why| panic::resume_unwind(why));
    });
}

#[test]
fn where_others_need_the_place_it_is_over_sooner() {
    run(async {
        let (mut crowded, mut patient, scratch) = (Bench::new(), Bench::new(), Scratch::new());
        let mut ways = [(); 2].map(|()| Direction::beginning_with(Vec::new(), 0, unbounded(), &scratch));
        let [one, other] = &mut ways;
        select! {
            biased;
            () = crowded.last_words(one, &scratch, true) => {}
            () = patient.last_words(other, &scratch, false) => panic!("no difference is made"),
        }
    });
}

#[test]
fn where_the_memory_is_spent_those_who_keep_some_end_sooner() {
    run(async {
        let (mut keeping, mut clear, scratch) = (Bench::new(), Bench::new(), Scratch::new());
        scratch.keep(KEPT_BUDGET);
        let mut keeps = Direction::beginning_with(vec![8; 100], 0, unbounded(), &scratch);
        let mut keeps_none = Direction::beginning_with(Vec::new(), 0, unbounded(), &scratch);
        select! {
            biased;
            () = keeping.last_words(&mut keeps, &scratch, false) => {}
            () = clear.last_words(&mut keeps_none, &scratch, false) => panic!("no difference is made"),
        }
    });
}
