//! The end of a proxy that was told to end: nobody begins any more, and those who are here have their time.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, Instant};

use crate::config::model::Transport;
use crate::operation::notify::ServiceState;
use crate::signals::Stops;
use crate::steering::Proxy;
use crate::worker::Order;

/// How often the end of the last connection is looked for while draining.
pub(crate) const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long a handshake may take that has begun before the drain: a long way there and back.
const HANDSHAKE: Duration = Duration::from_secs(1);

impl Proxy {
    /// Says that it ends, after `delay` takes nothing new, and waits for those who are here. A second signal ends all waiting.
    pub(crate) async fn drain(&mut self, delay: Duration, stops: &mut Stops) {
        self.state().draining = true;
        self.tell_manager(ServiceState::Stopping, "draining");
        let mut most = self.generation.config.timeouts.drain;
        if !delay.is_zero() {
            tokio::select! {
                () = sleep(delay) => {}
                () = stops.any() => most = Duration::ZERO,
            }
        }
        let mut deadline = Instant::now() + most;
        if self.sockets.iter().filter(|bound| bound.refuse_newcomers()).count() > 0 {
            tokio::select! {
                () = sleep_until(deadline.min(Instant::now() + HANDSHAKE)) => {}
                () = stops.any() => deadline = Instant::now(),
            }
        }
        self.leave_now(|endpoint| endpoint.transport == Transport::Tcp).await;
        let mut are_flows_in_use = self.are_flows_in_use().await;
        while (self.admission.total() > 0 || are_flows_in_use) && Instant::now() < deadline {
            tokio::select! {
                () = sleep(DRAIN_LOOK) => {}
                () = stops.any() => break,
            }
            // Connections last longer, as a rule.
            are_flows_in_use = self.admission.total() == 0 && self.are_flows_in_use().await;
        }
        self.leave(|_| true);
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
