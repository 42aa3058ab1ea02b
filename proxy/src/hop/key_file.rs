//! Files of keys: one on each line, the first signs, all verify. What is in them is told to nobody.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::config::model::{Config, KeyFile};
use crate::wire::signature::HopKey;

/// Bytes of a file at most.
const LONGEST: usize = 4_096;
/// As many bytes of chance as the MAC has.
const SHORTEST_KEY: usize = 32;
/// What is longer, HMAC would shorten (RFC 2104 section 3).
const LONGEST_KEY: usize = 64;
/// One, and while it is changed another; each costs a MAC for whoever has none of them.
pub(super) const MOST_KEYS: usize = 4;
/// Of as many random bytes hardly any are alike: fewer were typed.
const FEWEST_VALUES: usize = 12;

/// A line that makes such a file.
const MAKE: &str = "`(umask 077; openssl rand -hex 32 >FILE)` makes one";
/// Where systemd puts what it gives to services, for their own processes alone.
const CREDENTIALS: &str = "/run/credentials";
/// Modes that let others read or write.
const OTHERS: u32 = 0o077;

/// The keys of each file of a configuration, by their [`crate::config::model::KeyId`].
#[derive(Debug, Default)]
pub(crate) struct Loaded(pub(super) Vec<Vec<HopKey>>);

/// What is wrong with a file, and where the configuration names it first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KeyFault {
    pub(crate) place: String,
    pub(crate) found: String,
    pub(crate) allowed: String,
    /// It says nothing of the proxy's own process: only that has what systemd gives it, and the rights of its user.
    pub(crate) is_of_asker: bool,
}

/// Reads all files of a configuration.
///
/// # Errors
///
/// The first that is not as it must be.
pub(crate) fn load(config: &Config) -> Result<Loaded, KeyFault> {
    config.key_files.iter().map(read).collect::<Result<_, _>>().map(Loaded)
}

/// All that are not as they must be.
pub(crate) fn faults(config: &Config) -> Vec<KeyFault> {
    config.key_files.iter().filter_map(|file| read(file).err()).collect()
}

pub(super) fn read(file: &KeyFile) -> Result<Vec<HopKey>, KeyFault> {
    let path = file.path.as_path();
    let told = |found: String, allowed: String, is_of_asker| {
        let (place, found) = (file.place.clone(), format!("{}: {found}", path.display()));
        KeyFault { place, found, allowed, is_of_asker }
    };
    let failed = |error: io::Error| {
        let is_given = path.starts_with(CREDENTIALS) && error.kind() == io::ErrorKind::NotFound;
        told(error.to_string(), mend_of(&error), is_given || error.kind() == io::ErrorKind::PermissionDenied)
    };
    // Not one that is made for whoever reads it: a pipe would be waited for.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let opened = opened.and_then(|file| file.metadata().map(|metadata| (file, metadata)));
    let (opened, metadata) = opened.map_err(failed)?;
    if !metadata.is_file() {
        return Err(told("not a file".to_owned(), MAKE.to_owned(), false));
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 && !is_credential(path) {
        let found = format!("its mode is {:o}: others may read or write it", mode & 0o777);
        let allowed = format!("`chmod 600 {}`; if others had read it, make another", path.display());
        return Err(told(found, allowed, false));
    }
    let mut bytes = Vec::with_capacity(LONGEST + 1); // which stays where it is, so that nothing of it is left elsewhere
    let filled = fill(&opened, &mut bytes).map_err(failed);
    let keys = filled.and_then(|()| keys(&bytes).map_err(|(found, allowed)| told(found, allowed, false)));
    wipe(&mut bytes);
    keys
}

fn fill(file: &File, bytes: &mut Vec<u8>) -> io::Result<()> {
    file.take(LONGEST as u64 + 1).read_to_end(bytes).map(drop)
}

fn mend_of(error: &io::Error) -> String {
    let of_service = "the service's user must own it, or have it by systemd's LoadCredential=";
    if error.kind() == io::ErrorKind::NotFound {
        MAKE.to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!("{of_service}; one that the process did not begin with takes a restart")
    } else {
        format!("it is a file that this process can read; {MAKE}")
    }
}

/// systemd keeps these from others; where it gives them to a service by an access list, the mask of that is in the mode.
fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|folder| path.parent() == Some(Path::new(&folder)))
}

/// The keys of a file's bytes. A fault names the line, and nothing that stands there.
fn keys(bytes: &[u8]) -> Result<Vec<HopKey>, (String, String)> {
    let fault = |found: String| Err((found, format!("each line is a key of 64 to 128 hexadecimal digits; {MAKE}")));
    if bytes.len() > LONGEST {
        return fault(format!("more than {LONGEST} bytes"));
    }
    let mut keys: Vec<HopKey> = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let line = std::str::from_utf8(line).map_or(line, |text| text.trim().as_bytes());
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let mut secret = Vec::with_capacity(LONGEST);
        let is_read = decode(line, &mut secret);
        let key = HopKey::of(&secret);
        let (length, values) = (secret.len(), values(&secret));
        wipe(&mut secret);
        match key {
            _ if !is_read => return fault(format!("line {number} is not of hexadecimal digits, two for each byte")),
            _ if !(SHORTEST_KEY..=LONGEST_KEY).contains(&length) => {
                return fault(format!("line {number} has {length} bytes; {SHORTEST_KEY} to {LONGEST_KEY} are allowed"));
            }
            _ if values < FEWEST_VALUES => return fault(format!("line {number} was not drawn at random")),
            Some(key) if keys.contains(&key) => {
                return fault(format!("line {number} is a key that stands there already"))
            }
            Some(key) => keys.push(key),
            None => return fault(format!("line {number} is no key")),
        }
    }
    match keys.len() {
        0 => fault("no key".to_owned()),
        1..=MOST_KEYS => Ok(keys),
        more => fault(format!("{more} keys; {MOST_KEYS} at most")),
    }
}

fn decode(line: &[u8], secret: &mut Vec<u8>) -> bool {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |two: &[u8]| match two {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    line.chunks(2).all(|two| byte(two).map(|byte| secret.push(byte)).is_some())
}

fn values(secret: &[u8]) -> usize {
    (0..=u8::MAX).filter(|value| secret.contains(value)).count()
}

fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::operation::scratch::Scratch;

    const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const TWO: &str = "202122232425262728292A2B2C2D2E2F303132333435363738393a3b3c3d3e3f";

    fn read(path: &Path) -> Result<Vec<HopKey>, KeyFault> {
        super::read(&KeyFile { path: path.to_owned(), place: "here".to_owned() })
    }

    fn found(text: &str) -> String {
        keys(text.as_bytes()).unwrap_err().0
    }

    #[test]
    fn each_line_is_a_key_in_the_order_of_the_file() {
        let secret: Vec<u8> = (0..32).collect();
        let read = keys(format!("# of the edge\n\n {ONE}\r\n{TWO}\n").as_bytes()).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0], HopKey::of(&secret).unwrap());
        assert_eq!(keys(ONE.as_bytes()).unwrap(), read[..1], "a file may end without a line feed");
        assert_eq!(keys(format!("{ONE}{TWO}").as_bytes()).unwrap().len(), 1, "one of 64 bytes");
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_said_nowhere() {
        let cases = [
            (String::new(), "no key"),
            ("# only this\n".to_owned(), "no key"),
            (format!("{ONE}\n{}", &TWO[..62]), "line 2 has 31 bytes"),
            (format!("{ONE}{TWO}00"), "line 1 has 65 bytes"),
            (TWO[..63].to_owned(), "line 1 is not of hexadecimal digits"),
            (TWO.replace('A', "g"), "line 1 is not of hexadecimal digits"),
            (TWO.replace('A', "\u{e9}"), "line 1 is not of hexadecimal digits"),
            ("00".repeat(32), "line 1 was not drawn at random"),
            (format!("{ONE}\n{ONE}"), "line 2 is a key that stands there already"),
            ((1..=5).map(|at| format!("{}{at:02}\n", &ONE[..62])).collect(), "5 keys"),
            (format!("{}{ONE}", "\n".repeat(LONGEST)), "more than 4096 bytes"),
        ];
        for (text, expected) in cases {
            let told = found(&text);
            assert!(told.starts_with(expected), "{told}");
            assert!(!told.contains("0a0b") && !told.contains("2425"), "{told}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_is_keys_or_a_fault_that_does_not_tell_it(bytes in vec(any::<u8>(), 0..200)) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            for held in [bytes.as_slice(), text.as_bytes(), &text.as_bytes()[..text.len().min(140)]] {
                match keys(held) {
                    Ok(keys) => prop_assert!((1..=MOST_KEYS).contains(&keys.len())),
                    Err((found, _)) => prop_assert!(text.len() < 8 || !found.contains(&text[..8])),
                }
            }
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_write_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.path("hop.key");
        fs::write(&path, ONE).unwrap();
        for (mode, is_right) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false), (0o601, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), is_right, "{mode:o}: {read:?}");
            if let Err(KeyFault { found, allowed, is_of_asker, .. }) = read {
                assert!(
                    !is_of_asker && found.contains(&format!("{mode:o}")) && allowed.contains("chmod 600"),
                    "{found} {allowed}"
                );
            }
        }
        symlink(&path, scratch.path("link")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(read(&scratch.path("link")).is_err(), "of a link it is the file's own mode");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let scratch = Scratch::new();
        let (pipe, folder) = (scratch.path("pipe"), scratch.path("folder"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        fs::create_dir(&folder).unwrap();
        for path in [pipe, folder] {
            assert_eq!(read(&path).unwrap_err().found, format!("{}: not a file", path.display()));
        }
        let none = read(&scratch.path("none")).unwrap_err();
        assert!(none.allowed.contains("openssl rand -hex 32") && !none.is_of_asker);
        let given = read(Path::new("/run/credentials/nobody.service/hop.key")).unwrap_err();
        assert!(given.is_of_asker, "others cannot see whether it will be there");
    }
}
