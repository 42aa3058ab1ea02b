//! MQTT 3.1, 3.1.1 and 5: `CONNECT` (OASIS MQTT 5.0, section 3.1).

use super::scan::{nameless, require, Scan, Stop};
use super::Sniffed;

/// A bridge of mosquitto sets this bit of the level.
const BRIDGE: u8 = 0x80;

pub(crate) fn sniff(bytes: &[u8]) -> Sniffed {
    nameless(connect(bytes))
}

fn connect(bytes: &[u8]) -> Result<(), Stop> {
    let mut scan = Scan::new(bytes);
    scan.literal(&[0x10])?;
    let length = remaining_length(&mut scan)?;
    scan.literal(&[0])?;
    let (name, levels, shortest): (&[u8], &[u8], u32) = match scan.byte_of(|size| matches!(size, 4 | 6))? {
        4 => (b"MQTT", &[4, 5], 12),
        _ => (b"MQIsdp", &[3], 14),
    };
    require(length >= shortest)?;
    scan.literal(name)?;
    scan.byte_of(|level| levels.contains(&(level & !BRIDGE)))?;
    scan.byte_of(|flags| flags & 1 == 0).map(|_| ())
}

/// One to four bytes of seven bits, the lowest first (1.5.5).
fn remaining_length(scan: &mut Scan<'_>) -> Result<u32, Stop> {
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let byte = scan.u8()?;
        length |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Stop::No)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::vectors::{cut_everywhere, yes};

    #[test]
    fn a_connect_of_each_version_is_known() {
        for bytes in [
            &b"\x10\x0c\0\x04MQTT\x04\x02"[..],
            b"\x10\x0d\0\x04MQTT\x05\xc2",
            b"\x10\x80\x01\0\x04MQTT\x84\x02",
            b"\x10\xff\xff\xff\x7f\0\x06MQIsdp\x03\x02",
        ] {
            assert_eq!(cut_everywhere(sniff, bytes), yes(None), "{bytes:?}");
        }
    }

    #[test]
    fn what_the_version_does_not_have_is_no_connect() {
        for bytes in [
            &b"\x20"[..],
            b"\x10\x80\x80\x80\x80",
            b"\x10\x0b\0\x04",
            b"\x10\x0d\0\x06",
            b"\x10\x0c\0\x05",
            b"\x10\x0c\0\x04MQTT\x03",
            b"\x10\x0e\0\x06MQIsdp\x04",
            b"\x10\x0c\0\x04MQTT\x04\x03",
        ] {
            assert_eq!(sniff(bytes), Sniffed::No, "{bytes:?}");
        }
    }
}
