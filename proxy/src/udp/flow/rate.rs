//! The rate of a flow: datagrams beyond it are dropped.

use crate::generation::Epoch;
use crate::operation::outcomes::UdpDrop;
use crate::tcp::allowance::Allowance;
use crate::udp::sending::Joined;

/// Lets those datagrams pass that the rate allows.
pub(super) fn limited<'a>(
    allowance: &mut Allowance,
    epoch: &Epoch,
    joined: impl Iterator<Item = Joined<'a>>,
    pass: impl FnOnce(&mut dyn Iterator<Item = Joined<'a>>),
) {
    if !allowance.is_bounded() {
        let mut joined = joined;
        return pass(&mut joined);
    }
    let mut over_rate = 0;
    let mut within = joined.flat_map(Joined::datagrams).map(Joined::one).filter(|datagram| {
        let passes = allowance.take_now(datagram.bytes.len());
        over_rate += u64::from(!passes);
        passes
    });
    pass(&mut within);
    drop(within);
    epoch.counters.datagrams_dropped(UdpDrop::Rate, over_rate);
}
