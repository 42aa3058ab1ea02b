//! A file's text in memory that two processes share: one writes it, the other reads it. A line before it has its sum and
//! length, so that a text that is being written is known as such, and a change by 21 bytes.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{memfd_create, MemFdCreateFlag};

/// Octets of a file that are taken; what follows is ignored.
pub(super) const LONGEST_FILE: usize = 16 << 20;
/// Sum and length in hexadecimal digits, a blank between, and the end of the line.
pub(super) const HEAD: usize = 8 + 1 + 11 + 1;

/// New memory, empty.
pub(super) fn memory() -> io::Result<File> {
    Ok(memfd_create(&CString::new("names")?, MemFdCreateFlag::MFD_CLOEXEC)?.into())
}

/// Writes the text in place of the former one.
pub(super) fn write(memory: &File, text: &[u8]) -> io::Result<()> {
    let mut whole = head(text).into_bytes();
    whole.extend_from_slice(text);
    // Not pwrite64, which no other process of the sandbox needs. Those who read have no use for the place.
    let mut memory = memory;
    memory.seek(SeekFrom::Start(0))?;
    memory.write_all(&whole)
}

fn head(text: &[u8]) -> String {
    format!("{:08x} {:011x}\n", crc32c::crc32c(text), text.len())
}

/// The line before the text: another one when the text is another one.
pub(super) fn stamp(memory: &File) -> io::Result<[u8; HEAD]> {
    let mut head = [0; HEAD];
    memory.read_exact_at(&mut head, 0)?;
    Ok(head)
}

/// The text that belongs to a stamp.
///
/// # Errors
///
/// It is being written.
pub(super) fn read(memory: &File, stamp: &[u8; HEAD]) -> io::Result<Vec<u8>> {
    let unknown = || io::Error::from(io::ErrorKind::InvalidData);
    let length = std::str::from_utf8(stamp).ok().and_then(|head| head.trim_end().split(' ').nth(1));
    let length = length.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    let mut text = vec![0; length.filter(|length| *length <= LONGEST_FILE).ok_or_else(unknown)?];
    memory.read_exact_at(&mut text, HEAD as u64)?;
    if head(&text).as_bytes() == stamp {
        Ok(text)
    } else {
        Err(unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_shorter_text_leaves_nothing_of_a_longer_one() {
        let memory = memory().unwrap();
        assert!(stamp(&memory).is_err(), "nothing was written yet");
        let mut stamps = Vec::new();
        for text in [&b"192.0.2.1 nas\n"[..], b"", b"a\0b", b"b\0a"] {
            write(&memory, text).unwrap();
            stamps.push(stamp(&memory).unwrap());
            assert_eq!(read(&memory, stamps.last().unwrap()).unwrap(), text);
        }
        stamps.dedup();
        assert_eq!(stamps.len(), 4, "each text has a stamp of its own");
    }

    #[test]
    fn a_text_that_is_half_written_is_not_read() {
        let memory = memory().unwrap();
        write(&memory, b"192.0.2.1 nas\n").unwrap();
        let before = stamp(&memory).unwrap();
        memory.write_all_at(b"198.51", HEAD as u64).unwrap();
        assert!(read(&memory, &before).is_err());
        memory.write_all_at(b"ffffffff fffffffffff\n", 0).unwrap();
        assert!(read(&memory, &stamp(&memory).unwrap()).is_err(), "too long to be one");
    }
}
