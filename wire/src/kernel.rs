//! Safe faces of the kernel's calls that have none yet. The only module with `unsafe`: the TUN driver's ioctls
//! (`linux/if_tun.h`), capset(2), sched_setattr(2) and taking over a descriptor, each with its reason. Each ioctl reads or writes exactly
//! the type named here.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

use crate::impairment::Offloads;

mod raw {
    use nix::{ioctl_read_bad, ioctl_write_int_bad, ioctl_write_ptr_bad, libc, request_code_read, request_code_write};

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

pub(crate) fn set_interface(file: &impl AsFd, name: &str, flags: libc::c_int) -> Result<(), Errno> {
    let mut request = empty_request();
    // The name was checked to be at most 15 bytes; the 16th stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open while `file` is borrowed; TUNSETIFF reads and writes one `ifreq`, which lives
    // on this stack frame.
    unsafe { raw::tunsetiff(file.as_fd().as_raw_fd(), &mut request) }.map(drop)
}

/// Name and flags of the interface that the descriptor is attached to.
pub(crate) fn interface(file: &impl AsFd) -> Result<(String, libc::c_int), Errno> {
    let mut request = empty_request();
    // SAFETY: as above; TUNGETIFF writes one `ifreq`.
    unsafe { raw::tungetiff(file.as_fd().as_raw_fd(), &mut request) }?;
    // SAFETY: the array was zeroed and the driver writes a C string of at most IFNAMSIZ bytes with its zero.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    // SAFETY: `ifru_flags` is the member that TUNGETIFF fills; any bits are a valid c_short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok((name.to_string_lossy().into_owned(), libc::c_int::from(flags)))
}

pub(crate) fn set_vnet_header_len(file: &impl AsFd, length: usize) -> Result<(), Errno> {
    let length = libc::c_int::try_from(length).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open; TUNSETVNETHDRSZ reads one c_int.
    unsafe { raw::tunsetvnethdrsz(file.as_fd().as_raw_fd(), &length) }.map(drop)
}

/// What the frames read from here may leave undone; of it all what this kernel knows. The ioctl's argument is the set
/// itself, not a pointer.
pub(crate) fn allow_offloads(file: &impl AsFd, allowed: Offloads) -> Result<(), Errno> {
    match allowed {
        Offloads::None => set_offloads(file, 0),
        Offloads::Checksum => set_offloads(file, libc::TUN_F_CSUM),
        Offloads::Every => match set_offloads(file, TCP_OFFLOADS | UDP_OFFLOADS) {
            Err(Errno::EINVAL) => set_offloads(file, TCP_OFFLOADS),
            answered => answered,
        },
    }
}

fn set_offloads(file: &impl AsFd, offloads: libc::c_uint) -> Result<(), Errno> {
    let offloads = libc::c_int::try_from(offloads).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the descriptor is open; TUNSETOFFLOAD takes its argument by value and touches no memory of ours.
    unsafe { raw::tunsetoffload(file.as_fd().as_raw_fd(), offloads) }.map(drop)
}

/// Gives up every capability of the only thread of this process.
pub(crate) fn give_up_capabilities() -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`: sets of 64 bits in two halves.
    const VERSION: u32 = 0x2008_0522;
    // struct __user_cap_header_struct: version, process (0: this one); struct __user_cap_data_struct[2]: three sets each.
    let header = [VERSION, 0];
    let no_capabilities = [0_u32; 6];
    // SAFETY: capset(2) reads both arrays, which have the size that this version asks for, and keeps neither.
    let answered = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), no_capabilities.as_ptr()) };
    if answered == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Asks for short waits for the processor, the most that is granted of: the lowest real-time priority (a wire in the kernel
/// would not wait for a process either; the kernel leaves others a twentieth); a nice value of -10; a slice of 100 us,
/// which brings early turns (the EEVDF scheduler of Linux 6.12 and newer).
pub(crate) fn ask_for_early_turns() {
    /// `struct sched_attr` of `linux/sched/types.h`, its first version.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    const SIZE: u32 = 48;
    const OTHER: u32 = 0; // SCHED_OTHER
    const ROUND_ROBIN: u32 = 2; // SCHED_RR
    for (policy, nice, priority) in [(ROUND_ROBIN, 0, 1), (OTHER, -10, 0), (OTHER, 0, 0)] {
        let attributes = Attributes {
            size: SIZE,
            policy,
            flags: 0,
            nice,
            priority,
            runtime_ns: 100_000,
            deadline_ns: 0,
            period_ns: 0,
        };
        // SAFETY: sched_setattr(2) reads `size` bytes, which is what the structure has, and keeps none.
        let answered = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0) };
        if answered == 0 {
            return;
        }
    }
}

/// The caller knows that the descriptor is open, and that nothing else in this process owns it.
pub(crate) fn take_over(descriptor: RawFd) -> OwnedFd {
    // SAFETY: it was handed over by the command line, each number once and checked to be open and above stderr, or made
    // for us by recvmsg(2).
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn empty_request() -> libc::ifreq {
    // SAFETY: `ifreq` is plain old data; all zeroes is an empty name and an empty union.
    unsafe { mem::zeroed() }
}
