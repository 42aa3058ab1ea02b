//! git: the first line of a client of its daemon (gitprotocol-pack(5)), which mostly names the host.

use super::authority::of_authority;
use super::scan::{named, require, settled, Scan, Stop};
use super::{Found, Sniffed};

/// Of a line's length, which counts these digits too.
const DIGITS: u32 = 4;
/// The longest line that there is (gitprotocol-common(5)).
const LONGEST: u32 = 65520;
const SERVICES: [&[u8]; 3] = [b"upload-pack ", b"upload-archive ", b"receive-pack "];

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    settled(request(bytes))
}

/// Whether the service is there; the host may come later.
pub(crate) fn is_certain(bytes: &[u8]) -> bool {
    service(&mut Scan::new(bytes)).is_ok()
}

fn request(bytes: &[u8]) -> Result<Found, Stop> {
    let mut scan = Scan::new(bytes);
    let left = service(&mut scan)?;
    let line = scan.take(left)?;
    let mut parts = line.split(|byte| *byte == 0);
    let _path = parts.next();
    let host = parts.next().and_then(|part| part.strip_prefix(b"host="));
    Ok(named(host.and_then(of_authority)))
}

/// Reads the service; how much of the line is left.
fn service(scan: &mut Scan<'_>) -> Result<usize, Stop> {
    let mut length = 0;
    for _ in 0..DIGITS {
        let digit = scan.byte_of(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))?;
        length = length << 4 | char::from(digit).to_digit(16).unwrap_or_default();
    }
    require(length <= LONGEST)?;
    scan.literal(b"git-")?;
    let mut answer = Err(Stop::No);
    for service in SERVICES {
        let mut beyond = *scan;
        match beyond.literal(service) {
            Ok(()) => {
                let read = usize::try_from(DIGITS).unwrap_or_default() + b"git-".len() + service.len();
                let left = usize::try_from(length).unwrap_or_default().checked_sub(read).ok_or(Stop::No)?;
                require(left > 0)?; // the path
                *scan = beyond;
                return Ok(left);
            }
            Err(Stop::NeedMore) => answer = Err(Stop::NeedMore),
            Err(Stop::No) => {}
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    fn line(text: &str) -> Vec<u8> {
        format!("{:04x}{text}", text.len() + 4).into_bytes()
    }

    #[test]
    fn the_host_is_the_name() {
        for (text, name) in [
            ("git-upload-pack /a.git\0host=Git.Example\0\0version=2\0", Some("git.example")),
            ("git-upload-pack /a.git\0host=git.example.:9419\0", Some("git.example")),
            ("git-receive-pack a\0host=git.example\0", Some("git.example")),
            ("git-upload-archive /a\0host=192.0.2.1\0", None),
            ("git-upload-pack /a.git\0host=[2001:db8::1]:9418\0", None),
            ("git-upload-pack /a.git\n", None),
            ("git-upload-pack /host=a.git\0\0version=1\0host=a\0", None),
        ] {
            assert_eq!(cut_everywhere(sniff, &line(text)), yes(name), "{text:?}");
        }
    }

    #[test]
    fn the_first_impossible_byte_ends_it() {
        let samples: [&[u8]; 8] = [
            b"g",
            b"00A",
            b"fff1",
            b"0032h",
            b"0032git-u_",
            b"0032git-upload-",
            b"0014git-upload-pack ",
            b"0000git-upload-pack ",
        ];
        let answers = samples.map(sniff);
        assert_eq!(answers[5], Sniffed::NeedMore, "two services begin so");
        for (at, answer) in answers.iter().enumerate().filter(|(at, _)| *at != 5) {
            assert_eq!(*answer, Sniffed::No, "{}", samples[at].escape_ascii());
        }
    }

    #[test]
    fn it_is_certain_after_the_service() {
        let whole = line("git-upload-pack /a\0host=a\0");
        let end = "0000git-upload-pack ".len();
        assert!(is_certain(&whole[..end]) && sniff(&whole[..end]) == Sniffed::NeedMore);
        assert!(!is_certain(&whole[..end - 1]));
        assert!(!is_certain(b"0014git-upload-pack "), "what it denies is not certain");
    }
}
