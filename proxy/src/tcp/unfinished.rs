//! A stream whose end is a reset unless it is finished: what was cut short must not look complete, also when the proxy's own
//! end cuts it short.

use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Protocol, SockRef};

use crate::kernel::cut;

/// See the module.
#[derive(Debug)]
pub(crate) struct Unfinished<S: AsFd>(Option<S>);

impl<S: AsFd> Unfinished<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Some(stream))
    }

    /// The stream. It is there: only what consumes this takes it out.
    pub(crate) fn get(&mut self) -> Option<&mut S> {
        self.0.as_mut()
    }

    /// The same stream in another form, as unfinished.
    pub(crate) fn into_form<T: AsFd, E>(mut self, form: impl FnOnce(S) -> Result<T, E>) -> Option<Unfinished<T>> {
        let stream = self.0.take()?;
        form(stream).ok().map(Unfinished::new)
    }

    /// Closes it in order: nothing is owed any more.
    pub(crate) fn finish(mut self) {
        self.0 = None;
    }
}

impl<S: AsFd> Drop for Unfinished<S> {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            reset(stream);
        }
    }
}

/// Makes the end of a stream a reset.
pub(crate) fn reset(stream: &impl AsFd) {
    let socket = SockRef::from(stream);
    // A socket that refuses this is gone already.
    let _ = socket.set_linger(Some(Duration::ZERO));
    // Until the summer of 2026 Multipath TCP took that for an end in order (`__mptcp_close` in the kernel's net/mptcp/protocol.c).
    if socket.protocol().is_ok_and(|protocol| protocol == Some(Protocol::MPTCP)) {
        let _ = cut(stream.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;
    use crate::multipath;

    #[test]
    fn an_end_by_multipath_tcp_is_a_reset_whatever_the_kernel_makes_of_lingering() {
        let Some((mut sender, mut receiver)) = pair() else { return };
        sender.write_all(b"cut short").expect("sent");
        reset(&sender);
        // It is not closed, so it is not for lingering.
        let mut heard = Vec::new();
        assert_eq!(receiver.read_to_end(&mut heard).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        drop(sender);
        assert_eq!(heard, b"cut short");
    }

    /// Both ends of a connection, if this kernel makes such ones.
    fn pair() -> Option<(TcpStream, TcpStream)> {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = multipath::stream(any, true).expect("a socket");
        if listener.protocol().expect("one") != Some(Protocol::MPTCP) {
            return None;
        }
        listener.set_nonblocking(false).expect("blocking");
        listener.bind(&any.into()).expect("bound");
        listener.listen(1).expect("listening");
        let listener = TcpListener::from(listener);
        let client = multipath::stream(any, true).expect("a socket");
        client.set_nonblocking(false).expect("blocking");
        client.connect(&listener.local_addr().expect("bound").into()).expect("a connection");
        let (mut client, (mut accepted, _)) = (TcpStream::from(client), listener.accept().expect("accepted"));
        accepted.set_read_timeout(Some(Duration::from_secs(20))).expect("a time");
        client.write_all(b"x").expect("sent");
        accepted.read_exact(&mut [0]).expect("it is by Multipath TCP from here on");
        Some((client, accepted))
    }
}
