//! Ports for flows that have none: others of the same worker are asked for theirs, in turn, so that each port comes to lead to as
//! many backends as the next. The kernel finds the socket of an answer among all of one port.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

use crate::operation::outcomes::SourceUsed;
use crate::transparent::port_sharing::{may_share, Lent};

use super::flow::{Flow, Outlet};

/// How long nobody is asked for a port to a backend after all had none. A flood of made-up sources would have all asked for each.
const REST: Duration = Duration::from_secs(1);

/// Backends of which that is remembered.
const MOST: usize = 64;

/// Who is asked first, and to where nobody has a port.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    /// Those that are asked last.
    passed: Cell<usize>,
    /// Until when nobody is asked.
    rests: RefCell<HashMap<SocketAddr, Instant>>,
}

impl Lending {
    /// What the first of `all` that has something lends towards an address.
    pub(super) fn find<A, T, I: Iterator<Item = A>>(
        &self,
        (to, now): (SocketAddr, Instant),
        all: impl Fn() -> I,
        mut ask: impl FnMut(A) -> Lent<T>,
    ) -> Option<T> {
        if self.rests.borrow().get(&to).is_some_and(|until| now < *until) {
            return None;
        }
        let passed = self.passed.get();
        for (place, one) in all().enumerate().skip(passed).chain(all().enumerate().take(passed)) {
            if let ControlFlow::Break(lent) = ask(one) {
                self.passed.set(place + 1);
                if lent.is_none() {
                    break;
                }
                return lent;
            }
        }
        self.rest(to, now);
        None
    }

    fn rest(&self, to: SocketAddr, now: Instant) {
        let mut rests = self.rests.borrow_mut();
        if rests.len() >= MOST {
            rests.retain(|_, until| now < *until);
        }
        if rests.len() >= MOST {
            rests.clear();
        }
        rests.insert(to, now + REST);
    }
}

impl Flow {
    /// A socket towards another backend by the port of this one.
    pub(super) fn lend_port(&self, to: SocketAddr) -> Lent {
        // Its port may go on in another process.
        if self.is_ended.get() {
            return ControlFlow::Continue(());
        }
        // No call of the kernel for those that have none to lend, for all are asked.
        let target = self.story.try_borrow().ok().and_then(|story| story.target);
        if !target.is_some_and(|taken| taken.source == SourceUsed::Own && may_share(taken.at, to)) {
            return ControlFlow::Continue(());
        }
        match self.outlet.try_borrow_mut().as_deref_mut() {
            Ok(Outlet::Open(upstream)) => upstream.lend_port(to, &self.worker.udp_endpoints),
            Ok(Outlet::Held(_) | Outlet::Closed) | Err(_) => ControlFlow::Continue(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn backend(number: u16) -> SocketAddr {
        SocketAddr::new([192, 0, 2, 1].into(), number)
    }

    /// Ports, and where each leads.
    type Ports = Vec<HashSet<SocketAddr>>;

    fn borrow(lending: &Lending, ports: &RefCell<Ports>, to: SocketAddr, now: Instant) -> (Option<usize>, usize) {
        let count = ports.borrow().len();
        let mut asked = 0;
        let lent = lending.find(
            (to, now),
            || 0..count,
            |port| {
                asked += 1;
                let is_new = ports.borrow_mut()[port].insert(to);
                if is_new {
                    ControlFlow::Break(Some(port))
                } else {
                    ControlFlow::Continue(())
                }
            },
        );
        (lent, asked)
    }

    #[test]
    fn many_backends_are_spread_over_the_ports() {
        let (lending, ports, now) = (Lending::default(), RefCell::new(vec![HashSet::new(); 20]), Instant::now());
        for number in 0..60 {
            assert_eq!(borrow(&lending, &ports, backend(number), now).1, 1, "the next one is asked");
        }
        assert!(ports.borrow().iter().all(|led| led.len() == 3), "{ports:?}");
    }

    #[test]
    fn all_are_asked_and_when_none_lends_nobody_for_a_while_towards_there() {
        let (lending, ports, now) = (Lending::default(), RefCell::new(vec![HashSet::new(); 5000]), Instant::now());
        let later = now + REST;
        for _ in 0..5000 {
            assert!(borrow(&lending, &ports, backend(1), now).0.is_some());
        }
        assert_eq!(borrow(&lending, &ports, backend(1), now), (None, 5000));
        ports.borrow_mut()[17].clear();
        assert_eq!(borrow(&lending, &ports, backend(1), later - Duration::from_nanos(1)), (None, 0));
        assert_eq!(borrow(&lending, &ports, backend(2), now).1, 1, "to another one");
        assert_eq!(borrow(&lending, &ports, backend(1), later).0, Some(17));
    }

    #[test]
    fn an_address_to_which_no_port_leads_ends_the_asking() {
        let (lending, now) = (Lending::default(), Instant::now());
        let asked = Cell::new(0);
        for at in [now, now, now + REST] {
            let refused = |_| {
                asked.set(asked.get() + 1);
                ControlFlow::<Option<()>>::Break(None)
            };
            assert_eq!(lending.find((backend(1), at), || 0..9, refused), None);
        }
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn of_few_backends_it_is_remembered_that_nobody_lends() {
        let (lending, now) = (Lending::default(), Instant::now());
        for number in 0..1000 {
            assert_eq!(borrow(&lending, &RefCell::default(), backend(number), now), (None, 0));
            assert!(lending.rests.borrow().len() <= MOST);
            assert!(lending.rests.borrow().contains_key(&backend(number)));
        }
    }
}
