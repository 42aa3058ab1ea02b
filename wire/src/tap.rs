//! A TAP device's descriptor: attach, read, write. The only module with `unsafe`: the TUN driver's ioctls
//! (`linux/if_tun.h`) and taking over an inherited descriptor, each with its reason.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, FdFlag, OFlag};
use nix::libc;
use nix::net::if_::if_nametoindex;

use crate::direction::{Delivery, Frame, VNET_HEADER_LEN};

const CLONE_DEVICE: &str = "/dev/net/tun";
/// A TAP without the packet-information prefix, with the offload header.
const FLAGS: libc::c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// The open end of a TAP device.
#[derive(Debug)]
pub(crate) struct Tap {
    name: String,
    file: File,
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
        ioctl::set_interface(&file, name, FLAGS).map_err(|errno| TapError::at_attach(name, errno))?;
        Self::prepare(name.to_owned(), file)
    }

    /// Takes over a descriptor that the parent attached; checks that it was attached as a wire needs it.
    pub(crate) fn inherit(descriptor: RawFd) -> Result<Self, TapError> {
        let fd_flags = fcntl(descriptor, FcntlArg::F_GETFD).map_err(|_| TapError::NotOpen { descriptor })?;
        let status = fcntl(descriptor, FcntlArg::F_GETFL).map_err(|_| TapError::NotOpen { descriptor })?;
        let file = ioctl::take_over(descriptor);
        let shown = format!("descriptor {descriptor}");
        let (name, flags) = ioctl::interface(&file)
            .map_err(|_| TapError::not_a_tap(&shown, "it is not attached to a TUN/TAP device"))?;
        if flags & FLAGS != FLAGS {
            let why = "attach it with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR";
            return Err(TapError::not_a_tap(&format!("{shown} ({name})"), why));
        }
        let refused = |errno| TapError::host(&format!("fcntl of {shown}"), errno);
        let nonblocking = OFlag::from_bits_retain(status) | OFlag::O_NONBLOCK;
        fcntl(descriptor, FcntlArg::F_SETFL(nonblocking)).map_err(refused)?;
        let cloexec = FdFlag::from_bits_retain(fd_flags) | FdFlag::FD_CLOEXEC;
        fcntl(descriptor, FcntlArg::F_SETFD(cloexec)).map_err(refused)?;
        Self::prepare(name, file)
    }

    fn prepare(name: String, file: File) -> Result<Self, TapError> {
        let refused = |what: &str, errno| TapError::host(&format!("{what} of {name}"), errno);
        ioctl::set_vnet_header_len(&file, VNET_HEADER_LEN).map_err(|errno| refused("offload header", errno))?;
        ioctl::set_every_offload(&file).map_err(|errno| refused("offloads", errno))?;
        Ok(Self { name, file })
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

    fn gone(&self, cause: io::Error) -> TapError {
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

#[allow(unsafe_code)]
mod ioctl {
    //! Safe faces of the driver's calls. Each ioctl reads or writes exactly the type named here.

    use std::ffi::CStr;
    use std::mem;
    use std::os::fd::FromRawFd;

    use super::{libc, AsRawFd, Errno, File, RawFd};

    mod raw {
        use nix::{
            ioctl_read_bad, ioctl_write_int_bad, ioctl_write_ptr_bad, libc, request_code_read, request_code_write,
        };

        // The kernel writes the name back, so this "write" call takes a mutable pointer.
        ioctl_read_bad!(tunsetiff, request_code_write!(b'T', 202, 4), libc::ifreq);
        ioctl_write_int_bad!(tunsetoffload, request_code_write!(b'T', 208, 4));
        ioctl_read_bad!(tungetiff, request_code_read!(b'T', 210, 4), libc::ifreq);
        ioctl_write_ptr_bad!(tunsetvnethdrsz, request_code_write!(b'T', 216, 4), libc::c_int);
    }

    /// Checksums, segments of TCP over IPv4 and IPv6, those with ECN marks.
    const TCP_OFFLOADS: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    /// Segments of UDP over IPv4 and IPv6; Linux 6.2 and newer.
    const UDP_OFFLOADS: libc::c_uint = 0x20 | 0x40;

    pub(super) fn set_interface(file: &File, name: &str, flags: libc::c_int) -> Result<(), Errno> {
        let mut request = empty_request();
        // The name was checked to be at most 15 bytes; the 16th stays zero.
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open while `file` is borrowed; TUNSETIFF reads and writes one `ifreq`, which lives
        // on this stack frame.
        unsafe { raw::tunsetiff(file.as_raw_fd(), &mut request) }.map(drop)
    }

    /// Name and flags of the interface that the descriptor is attached to.
    pub(super) fn interface(file: &File) -> Result<(String, libc::c_int), Errno> {
        let mut request = empty_request();
        // SAFETY: as above; TUNGETIFF writes one `ifreq`.
        unsafe { raw::tungetiff(file.as_raw_fd(), &mut request) }?;
        // SAFETY: the array was zeroed and the driver writes a C string of at most IFNAMSIZ bytes with its zero.
        let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
        // SAFETY: `ifru_flags` is the member that TUNGETIFF fills; any bits are a valid c_short.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok((name.to_string_lossy().into_owned(), libc::c_int::from(flags)))
    }

    pub(super) fn set_vnet_header_len(file: &File, length: usize) -> Result<(), Errno> {
        let length = libc::c_int::try_from(length).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open; TUNSETVNETHDRSZ reads one c_int.
        unsafe { raw::tunsetvnethdrsz(file.as_raw_fd(), &length) }.map(drop)
    }

    /// Every offload that this kernel knows. The ioctl's argument is the set itself, not a pointer.
    pub(super) fn set_every_offload(file: &File) -> Result<(), Errno> {
        match set_offloads(file, TCP_OFFLOADS | UDP_OFFLOADS) {
            Err(Errno::EINVAL) => set_offloads(file, TCP_OFFLOADS),
            answered => answered,
        }
    }

    fn set_offloads(file: &File, offloads: libc::c_uint) -> Result<(), Errno> {
        let offloads = libc::c_int::try_from(offloads).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the descriptor is open; TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
        unsafe { raw::tunsetoffload(file.as_raw_fd(), offloads) }.map(drop)
    }

    /// The caller has checked that the descriptor is open and above stderr.
    pub(super) fn take_over(descriptor: RawFd) -> File {
        // SAFETY: the parent handed it over by the command line, each number once, so nothing else in this process owns it.
        unsafe { File::from_raw_fd(descriptor) }
    }

    fn empty_request() -> libc::ifreq {
        // SAFETY: `ifreq` is plain old data; all zeroes is an empty name and an empty union.
        unsafe { mem::zeroed() }
    }
}
