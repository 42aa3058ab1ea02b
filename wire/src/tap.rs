//! A TAP device's descriptor: attach, read, write, and what may be left undone in what is read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::libc;
use nix::net::if_::if_nametoindex;

use crate::counters::Delivery;
use crate::frame::{Frame, VNET_HEADER_LEN};
use crate::impairment::Offloads;
use crate::kernel;

const CLONE_DEVICE: &str = "/dev/net/tun";
/// A TAP without the packet-information prefix, with the offload header.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// The open end of a TAP device.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
    file: File,
    offloads: Offloads,
}

/// Why a TAP cannot be used.
#[derive(Debug)]
pub(crate) enum TapError {
    NoSuchDevice { name: String },
    NotATap { name: String, why: String },
    NotOpen { descriptor: RawFd },
    Host { what: String, cause: io::Error },
}

impl Tap {
    /// Attaches to the existing device `name` of this network namespace and asks for every offload.
    pub(crate) fn attach(name: &str) -> Result<Self, TapError> {
        // TUNSETIFF would make a missing device; a wire joins what its lab has made.
        if if_nametoindex(name).is_err() {
            return Err(TapError::NoSuchDevice { name: name.to_owned() });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(CLONE_DEVICE)
            .map_err(|cause| TapError::Host { what: format!("open {CLONE_DEVICE}"), cause })?;
        kernel::set_interface(&file, name, FLAGS).map_err(|errno| TapError::at_attach(name, errno))?;
        Self::prepare(name.to_owned(), file)
    }

    /// Takes over a descriptor that the parent attached; checks that it was attached as a wire needs it.
    pub(crate) fn inherit(descriptor: RawFd) -> Result<Self, TapError> {
        fcntl(descriptor, FcntlArg::F_GETFD).map_err(|_| TapError::NotOpen { descriptor })?;
        Self::adopt(kernel::take_over(descriptor))
    }

    /// The same with a descriptor that is known to be open.
    pub(crate) fn adopt(owned: OwnedFd) -> Result<Self, TapError> {
        let descriptor = owned.as_raw_fd();
        let shown = format!("descriptor {descriptor}");
        let (name, flags) = kernel::interface(&owned)
            .map_err(|_| TapError::not_a_tap(&shown, "it is not attached to a TUN/TAP device"))?;
        if flags & FLAGS != FLAGS {
            let why = "attach it with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR";
            return Err(TapError::not_a_tap(&format!("{shown} ({name})"), why));
        }
        let refused = |errno| TapError::host(&format!("fcntl of {shown}"), errno);
        let status = fcntl(descriptor, FcntlArg::F_GETFL).map_err(refused)?;
        let nonblocking = OFlag::from_bits_retain(status) | OFlag::O_NONBLOCK;
        fcntl(descriptor, FcntlArg::F_SETFL(nonblocking)).map_err(refused)?;
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(refused)?;
        Self::prepare(name, File::from(owned))
    }

    fn prepare(name: String, file: File) -> Result<Self, TapError> {
        kernel::set_vnet_header_len(&file, VNET_HEADER_LEN)
            .map_err(|errno| TapError::host(&format!("offload header of {name}"), errno))?;
        let tap = Self { name, file, offloads: Offloads::Every };
        tap.allow(Offloads::Every)?;
        Ok(tap)
    }

    /// What the kernel may leave undone in the frames that are read from here, from now on; frames that wait already
    /// are as they are.
    pub(crate) fn allow_offloads(&mut self, offloads: Offloads) -> Result<(), TapError> {
        if offloads != self.offloads {
            self.allow(offloads)?;
            self.offloads = offloads;
        }
        Ok(())
    }

    pub(crate) fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn allow(&self, offloads: Offloads) -> Result<(), TapError> {
        kernel::allow_offloads(&self.file, offloads)
            .map_err(|errno| TapError::host(&format!("offloads of {}", self.name), errno))
    }

    /// The next frame's bytes, or None when none waits.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, TapError> {
        match (&self.file).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(cause) => Err(self.gone(cause)),
        }
    }

    /// Gives a frame to the device.
    pub(crate) fn write(&self, frame: Frame<'_>) -> Result<Delivery, TapError> {
        let Err(cause) = (&self.file).write(frame.as_bytes()) else {
            return Ok(Delivery::Taken);
        };
        match cause.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Ok(Delivery::NoRoom),
            Some(libc::EIO) => Ok(Delivery::Down),
            Some(libc::EINVAL | libc::EMSGSIZE) => Ok(Delivery::Refused),
            _ => Err(self.gone(cause)),
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The error of a device that no longer answers.
    pub(crate) fn gone(&self, cause: io::Error) -> TapError {
        TapError::Host { what: format!("{}: the device went away", self.name), cause }
    }
}

impl TapError {
    pub(crate) fn host(what: &str, errno: Errno) -> Self {
        Self::Host { what: what.to_owned(), cause: errno.into() }
    }

    fn at_attach(name: &str, errno: Errno) -> Self {
        if errno == Errno::EINVAL {
            return Self::not_a_tap(name, "it is no TAP device with a single queue");
        }
        if errno == Errno::EBUSY {
            return Self::not_a_tap(name, "another program holds it");
        }
        Self::host(&format!("attach to {name}"), errno)
    }

    fn not_a_tap(name: &str, why: &str) -> Self {
        Self::NotATap { name: name.to_owned(), why: why.to_owned() }
    }
}

impl fmt::Display for TapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDevice { name } => {
                write!(f, "no device {name} in this network namespace; make it by: ip tuntap add {name} mode tap")
            }
            Self::NotATap { name, why } => write!(f, "{name} cannot be an end of a wire: {why}"),
            Self::NotOpen { descriptor } => write!(f, "descriptor {descriptor} is not open"),
            Self::Host { what, cause } => write!(f, "{what}: {cause}"),
        }
    }
}
