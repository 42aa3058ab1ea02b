//! A start that fails, and a proxy that fails later: what is said of it, and how it ends.

use std::io::ErrorKind;
use std::path::PathBuf;

use tokio::sync::mpsc::{channel, UnboundedSender};
use tokio::time::{interval, timeout};

use super::tests::{own_address, text};
use super::*;
use crate::drain::Heard;
use crate::operation::scratch::Scratch;
use crate::run_error::Failure;

#[test]
fn what_cannot_be_opened_is_told_with_its_key_and_how_to_mend_it() {
    let scratch = Scratch::new();
    let path = scratch.path("c.toml");
    let folder = scratch.path("no/where");
    for key in ["admin_socket", "access_log"] {
        let operation = format!("[operation]\n{key} = \"{}/x\"\n", folder.display());
        std::fs::write(&path, text(&operation).replace("HERE", "127.0.0.1")).expect("written");
        let config = crate::config::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
        let said =
            Opened::all(config, Loaded::default(), None).map(drop).expect_err("there is no such folder").to_string();
        assert!(said.starts_with(&format!("operation.{key}: ")) && said.contains("its folder must be there"), "{said}");
    }
}

/// A configuration that refuses all who come.
fn refusing(scratch: &Scratch) -> PathBuf {
    let path = scratch.path("c.toml");
    let text = format!("[listener.in]\ntcp = [\"{}:1000\"]\n[[rule]]\nrefuse = true\n", own_address());
    std::fs::write(&path, text).expect("written");
    path
}

/// Within a runtime; failures are told by the sender.
fn started(path: &Path) -> (Proxy, UnboundedSender<Failure>) {
    let config = crate::config::load(path).expect("right");
    let opened = Opened::all(config, Loaded::default(), None).expect("all can be had");
    let mut proxy = opened.start(path, REST).expect("threads");
    let (failing, failures) = unbounded_channel();
    proxy.failures = failures;
    (proxy, failing)
}

#[test]
fn a_worker_that_fails_while_it_serves_ends_the_proxy_so_that_it_is_started_anew() {
    let scratch = Scratch::new();
    let path = refusing(&scratch);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let (mut proxy, failing) = started(&path);
    let ending = tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut signals = Signals::hear().expect("signals");
        assert!(proxy.begin(None, &mut signals.stops).await.expect("it begins"));
        Failure::tell(&failing, "a worker ended".to_owned(), ErrorKind::OutOfMemory.into());
        proxy.steer(signals).await
    });
    let Err(error @ RunError::WorkerLost(_)) = ending else { panic!("{ending:?}") };
    assert_eq!(error.exit_status(), crate::commands::RAN_AND_FAILED);
}

#[test]
fn nobody_is_led_to_a_worker_that_is_lost_until_a_delay_is_over() {
    let scratch = Scratch::new();
    let path = refusing(&scratch);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let (mut proxy, failing) = started(&path);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let Signals { hangup, mut stops } = Signals::hear().expect("signals");
        assert!(proxy.begin(None, &mut stops).await.expect("it begins"));
        Failure::tell(&failing, "a worker ended".to_owned(), ErrorKind::OutOfMemory.into());
        let (_asking, orders) = channel(1);
        let second = Duration::from_secs(1);
        let mut heard = Heard { stops, hangup, orders, looks: interval(second) };
        timeout(60 * second, proxy.drain(3600 * second, &mut heard)).await.expect("it ends");
    });
}
