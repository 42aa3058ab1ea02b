//! Opens the client's Initial packets: their keys follow from what is on the wire (RFC 9001 section 5, RFC 9369 section 3.3).

use aes::cipher::{BlockEncrypt, KeyInit};
use aes::Aes128;
use aes_gcm::aead::AeadInPlace;
use aes_gcm::Aes128Gcm;
use hkdf::Hkdf;
use sha2::Sha256;

use super::quic_header::Version;

/// Bytes of the authentication tag.
const TAG: usize = 16;
/// The sample for header protection is taken as if the packet number had four bytes (RFC 9001 section 5.4.2).
const SAMPLE_OFFSET: usize = 4;
/// Bytes of a block of AES.
const SAMPLE: usize = 16;

/// Keys of the packets that a client protects for one connection id.
pub(crate) struct ClientKeys {
    aead: Aes128Gcm,
    iv: [u8; 12],
    header: Aes128,
}

impl ClientKeys {
    /// `dcid`: the destination connection id of the client's first packet (or of the first after a Retry).
    pub(crate) fn derive(version: Version, dcid: &[u8]) -> Option<Self> {
        let initial = Hkdf::<Sha256>::new(Some(salt(version)), dcid);
        let secret: [u8; 32] = expand_label(&initial, b"client in")?;
        let secret = Hkdf::<Sha256>::from_prk(&secret).ok()?;
        let [key_label, iv_label, header_label] = labels(version);
        let (key, iv, header): ([u8; 16], [u8; 12], [u8; 16]) =
            (expand_label(&secret, key_label)?, expand_label(&secret, iv_label)?, expand_label(&secret, header_label)?);
        Some(Self { aead: Aes128Gcm::new(&key.into()), iv, header: Aes128::new(&header.into()) })
    }

    /// The frames in `packet`, which is one whole packet; its packet number begins at `number_offset`.
    pub(crate) fn open(&self, packet: &[u8], number_offset: usize) -> Option<Vec<u8>> {
        let [mask, number_mask @ ..] = self.header_mask(packet, number_offset)?;
        let first = packet.first()? ^ (mask & 0x0f);
        let number_length = usize::from(first & 3) + 1;
        let mut header = packet.get(..number_offset + number_length)?.to_vec();
        *header.first_mut()? = first;
        let mut number = 0_u64;
        for (byte, mask) in header.get_mut(number_offset..)?.iter_mut().zip(number_mask) {
            *byte ^= mask;
            // The server has acknowledged nothing yet, so the number is whole (RFC 9000 section 17.1).
            number = number << 8 | u64::from(*byte);
        }
        let sealed = packet.get(header.len()..)?;
        let length = sealed.len().checked_sub(TAG)?;
        let (frames, tag) = sealed.split_at(length);
        let mut frames = frames.to_vec();
        self.aead
            .decrypt_in_place_detached(&self.nonce(number).into(), &header, &mut frames, tag.into())
            .ok()
            .map(|()| frames)
    }

    /// A packet as a client would protect it: for tests and fuzzing, which must get past the tag. `header` ends with a
    /// packet number of four bytes.
    pub(crate) fn seal(&self, header: &[u8], number: u32, frames: &[u8]) -> Option<Vec<u8>> {
        let mut packet = [header, frames].concat();
        let (_, body) = packet.split_at_mut(header.len());
        let tag = self.aead.encrypt_in_place_detached(&self.nonce(number.into()).into(), header, body).ok()?;
        packet.extend(tag);
        let number_offset = header.len().checked_sub(4)?;
        let [mask, number_mask @ ..] = self.header_mask(&packet, number_offset)?;
        *packet.first_mut()? ^= mask & 0x0f;
        packet.get_mut(number_offset..)?.iter_mut().zip(number_mask).for_each(|(byte, mask)| *byte ^= mask);
        Some(packet)
    }

    fn header_mask(&self, packet: &[u8], number_offset: usize) -> Option<[u8; 5]> {
        let begin = number_offset.checked_add(SAMPLE_OFFSET)?;
        let sample: [u8; SAMPLE] = packet.get(begin..)?.get(..SAMPLE)?.try_into().ok()?;
        let mut block = sample.into();
        self.header.encrypt_block(&mut block);
        block.get(..5)?.try_into().ok()
    }

    fn nonce(&self, number: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(number.to_le_bytes()).for_each(|(byte, part)| *byte ^= part);
        nonce
    }
}

fn salt(version: Version) -> &'static [u8; 20] {
    match version {
        Version::Draft29 => b"\xaf\xbf\xec\x28\x99\x93\xd2\x4c\x9e\x97\x86\xf1\x9c\x61\x11\xe0\x43\x90\xa8\x99",
        Version::V1 => b"\x38\x76\x2c\xf7\xf5\x59\x34\xb3\x4d\x17\x9a\xe6\xa4\xc8\x0c\xad\xcc\xbb\x7f\x0a",
        Version::V2 => b"\x0d\xed\xe3\xde\xf7\x00\xa6\xdb\x81\x93\x81\xbe\x6e\x26\x9d\xcb\xf9\xbd\x2e\xd9",
    }
}

/// Labels of the key, the IV and the header protection key.
fn labels(version: Version) -> [&'static [u8]; 3] {
    match version {
        Version::Draft29 | Version::V1 => [b"quic key", b"quic iv", b"quic hp"],
        Version::V2 => [b"quicv2 key", b"quicv2 iv", b"quicv2 hp"],
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 section 7.1).
fn expand_label<const LENGTH: usize>(secret: &Hkdf<Sha256>, label: &[u8]) -> Option<[u8; LENGTH]> {
    let mut okm = [0; LENGTH];
    let (length, label_length) = (u16::try_from(LENGTH).ok()?, u8::try_from(6 + label.len()).ok()?);
    let info: [&[u8]; 5] = [&length.to_be_bytes(), &[label_length], b"tls13 ", label, &[0]];
    secret.expand_multi_info(&info, &mut okm).ok().map(|()| okm)
}

#[cfg(test)]
mod tests {
    use super::super::sample_hello::datagrams;
    use super::{ClientKeys, Version};

    const DCID: &[u8] = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08";
    /// The packet number of these packets begins after a header of so many bytes.
    const NUMBER_OFFSET: usize = 18;
    const PACKETS: [(Version, &str); 2] = [
        (Version::V1, include_str!("../../tests/vectors/quic_initial/rfc9001_a2.hex")),
        (Version::V2, include_str!("../../tests/vectors/quic_initial/rfc9369_a2.hex")),
    ];

    #[test]
    fn the_packets_of_rfc_9001_a_2_and_rfc_9369_a_2_open_and_are_sealed_the_same() {
        for (version, text) in PACKETS {
            let packet = datagrams(text).remove(0);
            let keys = ClientKeys::derive(version, DCID).unwrap();
            let frames = keys.open(&packet, NUMBER_OFFSET).unwrap();
            assert_eq!(frames.len(), 1162);
            assert!(frames.starts_with(b"\x06\x00\x40\xf1\x01\x00\x00\xed\x03\x03\xeb\xf8\xfa\x56\xf1\x29"));
            assert!(frames[245..].iter().all(|&byte| byte == 0));
            let mut header = packet[..NUMBER_OFFSET + 4].to_vec();
            header[0] = if version == Version::V1 { 0xc3 } else { 0xd3 };
            header[NUMBER_OFFSET..].copy_from_slice(&[0, 0, 0, 2]);
            assert_eq!(keys.seal(&header, 2, &frames), Some(packet));
        }
    }

    #[test]
    fn neither_another_version_nor_another_id_nor_a_changed_bit_opens() {
        for (version, text) in PACKETS {
            let packet = datagrams(text).remove(0);
            let keys = ClientKeys::derive(version, DCID).unwrap();
            for other in [Version::V1, Version::V2, Version::Draft29] {
                let opened = ClientKeys::derive(other, DCID).unwrap().open(&packet, NUMBER_OFFSET);
                assert_eq!(opened.is_some(), other == version);
            }
            assert_eq!(ClientKeys::derive(version, &DCID[1..]).unwrap().open(&packet, NUMBER_OFFSET), None);
            for place in (0..packet.len()).step_by(7) {
                let mut changed = packet.clone();
                changed[place] ^= 1;
                assert_eq!(keys.open(&changed, NUMBER_OFFSET), None, "{place}");
            }
            for cut in 0..packet.len() {
                assert_eq!(keys.open(&packet[..cut], NUMBER_OFFSET), None, "{cut}");
            }
            assert_eq!(keys.open(&packet, usize::MAX), None);
        }
    }
}
