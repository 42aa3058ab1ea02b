//! The end of a proxy that was told to end: nobody begins any more, and those who are here have their time.

use std::io::Write as _;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, Instant, Interval};

use crate::commands::say;
use crate::config::model::Transport;
use crate::listening::Bound;
use crate::operation::admin::{write, Order as Asked, Response};
use crate::operation::admin_socket::Ordered;
use crate::operation::notify::ServiceState;
use crate::operation::reload_told::ReloadTold;
use crate::signals::Stops;
use crate::steering::Proxy;
use crate::worker::Order;

/// How often the end of the last connection is looked for while draining.
pub(crate) const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Who asks to be heard while it ends.
pub(crate) struct Heard {
    pub(crate) stops: Stops,
    pub(crate) hangup: Signal,
    pub(crate) orders: mpsc::Receiver<Ordered>,
    pub(crate) looks: Interval,
}

const ENDS: &str = "it is told to end";

impl Proxy {
    /// Says that it ends, after `delay` takes nothing new, and waits for those who are here. A second signal ends all waiting.
    pub(crate) async fn drain(&mut self, delay: Duration, heard: &mut Heard) {
        self.state().draining = true;
        self.tell_manager(ServiceState::Stopping, "draining");
        let mut most = self.generation.config.timeouts.drain;
        if !delay.is_zero() && self.rests_in_vain(Instant::now() + delay, heard).await {
            most = Duration::ZERO;
        }
        let mut deadline = Instant::now() + most;
        // What is done to a socket is done to its copies: a new process may have them, and serve.
        let are_own = self.giving.is_none();
        let handshakes = self.sockets.iter().filter(|_| are_own).filter_map(Bound::refuse_newcomers).max();
        if let Some(most) = handshakes {
            let until = deadline.min(Instant::now() + most);
            if self.rests_in_vain(until, heard).await {
                deadline = Instant::now();
            }
        }
        self.leave_now(|endpoint| endpoint.transport == Transport::Tcp).await;
        let mut are_flows_in_use = self.are_flows_in_use().await;
        while (self.admission.total() > 0 || are_flows_in_use) && Instant::now() < deadline {
            if self.rests_in_vain(Instant::now() + DRAIN_LOOK, heard).await {
                break;
            }
            // Connections last longer, as a rule.
            are_flows_in_use = self.admission.total() == 0 && self.are_flows_in_use().await;
        }
        self.leave(|_| true);
    }

    /// Rests until then, or until a worker is lost, and answers meanwhile. Whether it was told once more to end.
    async fn rests_in_vain(&mut self, until: Instant, heard: &mut Heard) -> bool {
        loop {
            tokio::select! {
                () = sleep_until(until) => return false,
                () = heard.stops.any() => return true,
                Some(failure) = self.failures.recv() => {
                    say(&format!("edgeproxy: {failure}"));
                    return false;
                }
                _ = heard.hangup.recv() => {
                    if let Some(log) = &self.log {
                        log.reopen();
                    }
                }
                _ = heard.looks.tick() => self.look(),
                Some(ordered) = heard.orders.recv() => self.answer_at_the_end(ordered).await,
            }
        }
    }

    /// Says who is here; the configuration and the sockets stay as they are.
    async fn answer_at_the_end(&self, ordered: Ordered) {
        let (response, answer) = match ordered {
            Ordered::Answer(Asked::Connections(page), answer) => {
                (Response::Connections(self.active(page).await), answer)
            }
            Ordered::Answer(Asked::Reload, answer) => (Response::Reload(Box::new(ReloadTold::refused(ENDS))), answer),
            Ordered::Answer(Asked::Drain, answer) => (Response::Done("draining".to_owned()), answer),
            Ordered::Answer(Asked::HandOver, _) => return,
            Ordered::HandOver(mut stream) => {
                // Whoever asked may be gone.
                let _ = stream.write_all(&write(&Response::Error(ENDS.to_owned())));
                return;
            }
        };
        let _ = answer.send(response);
    }

    /// Has no flow of datagrams begin any more; whether any is in use.
    async fn are_flows_in_use(&self) -> bool {
        let mut are_in_use = false;
        for hand in &self.workers {
            let (answer, answered) = oneshot::channel();
            hand.tell(Order::Drain(answer));
            are_in_use |= answered.await.unwrap_or(false);
        }
        are_in_use
    }
}
