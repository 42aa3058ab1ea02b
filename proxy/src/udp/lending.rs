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

/// Flows that are asked in vain within so long, for all newcomers together: the worker has other things to do. Who comes next
/// to a backend goes on where the one before has stopped.
const MOST_IN_VAIN: usize = 2048;
const SPAN: Duration = Duration::from_millis(50);

/// Flows that a newcomer asks all the same, so that those to backends where ports are had get one.
const FEW: usize = 16;

/// Backends of which it is remembered how far the asking has got.
const MOST: usize = 64;

/// How far the asking has got towards a backend.
#[derive(Debug, Clone, Copy)]
enum Asking {
    /// The next place, and how many were asked in vain before it.
    Goes { next: usize, in_vain: usize },
    /// All were, and nobody is until then.
    Rests(Instant),
}

/// Who is asked first, and to where nobody has a port.
#[derive(Debug, Default)]
pub(crate) struct Lending {
    /// Who is asked first, if nothing is known of the backend.
    next: Cell<usize>,
    asking: RefCell<HashMap<SocketAddr, Asking>>,
    /// How many were asked in vain since when.
    in_vain: Cell<Option<(Instant, usize)>>,
}

impl Lending {
    /// What the first of so many places that has something lends towards an address.
    pub(super) fn find<T>(
        &self,
        (to, now): (SocketAddr, Instant),
        places: usize,
        mut ask: impl FnMut(usize) -> Lent<T>,
    ) -> Option<T> {
        let known = self.asking.borrow_mut().remove(&to);
        let (mut next, before) = match known {
            Some(Asking::Rests(until)) if now < until => {
                self.note(to, Asking::Rests(until), now);
                return None;
            }
            Some(Asking::Goes { next, in_vain }) => (next, in_vain),
            Some(Asking::Rests(_)) | None => (self.next.get(), 0),
        };
        let (since, spent) = self.in_vain.get().filter(|(since, _)| now < *since + SPAN).unwrap_or((now, 0));
        let most = MOST_IN_VAIN.saturating_sub(spent).max(FEW).min(places.saturating_sub(before));
        let mut in_vain = 0;
        let mut found = ControlFlow::Continue(());
        while in_vain < most && found.is_continue() {
            let place = next.checked_rem(places).unwrap_or(0);
            next = place + 1;
            found = ask(place);
            in_vain += usize::from(found.is_continue());
        }
        self.in_vain.set(Some((since, spent + in_vain)));
        match found {
            ControlFlow::Break(Some(lent)) => {
                self.next.set(next);
                return Some(lent);
            }
            ControlFlow::Continue(()) if before + in_vain < places => {
                self.note(to, Asking::Goes { next, in_vain: before + in_vain }, now);
            }
            ControlFlow::Break(None) | ControlFlow::Continue(()) => self.note(to, Asking::Rests(now + REST), now),
        }
        None
    }

    fn note(&self, to: SocketAddr, how: Asking, now: Instant) {
        let mut asking = self.asking.borrow_mut();
        if asking.len() >= MOST {
            asking.retain(|_, how| !matches!(how, Asking::Rests(until) if *until <= now));
        }
        if asking.len() >= MOST {
            asking.clear();
        }
        asking.insert(to, how);
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
        let lent = lending.find((to, now), count, |port| {
            asked += 1;
            let is_new = ports.borrow_mut()[port].insert(to);
            if is_new {
                ControlFlow::Break(Some(port))
            } else {
                ControlFlow::Continue(())
            }
        });
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
        let (lending, ports, now) = (Lending::default(), RefCell::new(vec![HashSet::new(); 2000]), Instant::now());
        let later = now + REST;
        for _ in 0..2000 {
            assert!(borrow(&lending, &ports, backend(1), now).0.is_some());
        }
        assert_eq!(borrow(&lending, &ports, backend(1), now), (None, 2000));
        ports.borrow_mut()[17].clear();
        assert_eq!(borrow(&lending, &ports, backend(1), later - Duration::from_nanos(1)), (None, 0));
        assert_eq!(borrow(&lending, &ports, backend(2), now).1, 1, "to another one");
        assert_eq!(borrow(&lending, &ports, backend(1), later).0, Some(17));
    }

    #[test]
    fn of_many_not_all_are_asked_at_once_and_the_next_newcomer_goes_on_from_there() {
        let full = HashSet::from([backend(1)]);
        let (lending, ports) = (Lending::default(), RefCell::new(vec![full; 3 * MOST_IN_VAIN]));
        let start = Instant::now();
        let at = |span: u32| start + span * SPAN;
        assert_eq!(borrow(&lending, &ports, backend(1), at(0)), (None, MOST_IN_VAIN));
        assert_eq!(borrow(&lending, &ports, backend(1), at(0)), (None, FEW), "within one span");
        ports.borrow_mut()[10].clear();
        assert_eq!(borrow(&lending, &ports, backend(1), at(1)), (None, MOST_IN_VAIN));
        ports.borrow_mut()[3 * MOST_IN_VAIN - 1].clear();
        assert_eq!(borrow(&lending, &ports, backend(1), at(2)), (Some(3 * MOST_IN_VAIN - 1), MOST_IN_VAIN - FEW));
        assert_eq!(borrow(&lending, &ports, backend(1), at(3)).0, Some(10), "from the beginning");
        let (mut rounds, mut asked) = (0, 0);
        while borrow(&lending, &ports, backend(1), at(4 + rounds)).1 > 0 {
            (rounds, asked) = (rounds + 1, asked + 1);
        }
        assert_eq!(asked, 3, "then nobody lends, and it rests");
    }

    #[test]
    fn a_flood_to_many_backends_asks_no_more_and_keeps_nobody_from_a_port() {
        let full: HashSet<_> = (0..1000).map(backend).collect();
        let (lending, ports, now) = (Lending::default(), RefCell::new(vec![full; 20_000]), Instant::now());
        let asked: usize = (0..1000).map(|number| borrow(&lending, &ports, backend(number), now).1).sum();
        assert_eq!(asked, MOST_IN_VAIN + 999 * FEW);
        assert_eq!(borrow(&lending, &ports, backend(2000), now).1, 1);
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
            assert_eq!(lending.find((backend(1), at), 9, refused), None);
        }
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn of_few_backends_it_is_remembered_that_nobody_lends() {
        let (lending, now) = (Lending::default(), Instant::now());
        for number in 0..1000 {
            assert_eq!(borrow(&lending, &RefCell::default(), backend(number), now), (None, 0));
            assert!(lending.asking.borrow().len() <= MOST);
            assert!(lending.asking.borrow().contains_key(&backend(number)));
        }
    }
}
