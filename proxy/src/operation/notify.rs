//! What systemd is told of the service's state (`sd_notify(3)`): one datagram to `NOTIFY_SOCKET`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A state of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// It serves; also the end of a reload.
    Ready,
    /// It reads its configuration anew. The moment is of `CLOCK_MONOTONIC`; systemd asks for it (`Type=notify-reload`).
    Reloading {
        /// Since boot.
        monotonic: Duration,
    },
    /// It drains.
    Stopping,
    /// Another process is the service from here on.
    Succeeded {
        /// Which.
        by: u32,
    },
}

impl ServiceState {
    /// That a reload begins at this moment.
    pub fn reloading() -> io::Result<Self> {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        Ok(Self::Reloading { monotonic: now.into() })
    }
}

/// The socket of the service manager. Opened before the sandbox is entered, which hides its path.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
}

impl Notifier {
    /// To the address in `NOTIFY_SOCKET`; without one there is nobody to tell.
    pub fn connect(address: Option<&OsStr>) -> io::Result<Self> {
        let Some(address) = address.map(OsStr::as_bytes).filter(|address| !address.is_empty()) else {
            return Ok(Self { socket: None });
        };
        let address = match address {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?; // a manager that does not read must not stop the proxy
        Ok(Self { socket: Some(socket) })
    }

    /// Tells the state, with a line for `systemctl status`.
    pub fn tell(&self, state: ServiceState, status: &str) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        socket.send(message(state, status).as_bytes()).map(drop)
    }
}

fn message(state: ServiceState, status: &str) -> String {
    let state = match state {
        ServiceState::Ready => "READY=1".to_owned(),
        ServiceState::Reloading { monotonic } => format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic.as_micros()),
        ServiceState::Stopping => "STOPPING=1".to_owned(),
        ServiceState::Succeeded { by } => format!("MAINPID={by}"),
    };
    let status: String = status.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{state}\nSTATUS={status}\n")
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    fn received(by: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = by.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_arrive_at_a_path() {
        let scratch = Scratch::new();
        let path = scratch.path("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::connect(Some(path.as_os_str())).unwrap();
        notifier.tell(ServiceState::Ready, "3 listeners\nREADY=0").unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=3 listeners READY=0\n");
        let monotonic = Duration::from_micros(1_500_000);
        notifier.tell(ServiceState::Reloading { monotonic }, "reads").unwrap();
        assert_eq!(received(&manager), "RELOADING=1\nMONOTONIC_USEC=1500000\nSTATUS=reads\n");
        notifier.tell(ServiceState::Stopping, "drains").unwrap();
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=drains\n");
        notifier.tell(ServiceState::Succeeded { by: 7 }, "went on").unwrap();
        assert_eq!(received(&manager), "MAINPID=7\nSTATUS=went on\n");
    }

    #[test]
    fn states_arrive_at_an_abstract_name() {
        let name = format!("edgeproxy-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier::connect(Some(OsStr::new(&format!("@{name}")))).unwrap();
        notifier.tell(ServiceState::Ready, "").unwrap();
        assert_eq!(received(&manager), "READY=1\nSTATUS=\n");
    }

    #[test]
    fn a_reload_begins_now() {
        let [ServiceState::Reloading { monotonic: one }, ServiceState::Reloading { monotonic: two }] =
            [ServiceState::reloading().unwrap(), ServiceState::reloading().unwrap()]
        else {
            panic!("another state")
        };
        assert!(Duration::ZERO < one && one <= two);
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        Notifier::connect(None).unwrap().tell(ServiceState::Ready, "").unwrap();
        Notifier::connect(Some(OsStr::new(""))).unwrap().tell(ServiceState::Ready, "").unwrap();
    }
}
