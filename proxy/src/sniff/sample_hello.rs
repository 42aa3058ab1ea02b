//! Hellos made to measure, for the tests of what reads them.

/// A ClientHello whose every field can be put wrong.
#[derive(Debug, Clone)]
pub(crate) struct SampleHello {
    pub(crate) version: u16,
    pub(crate) session_id: Vec<u8>,
    /// DTLS only.
    pub(crate) cookie: Option<Vec<u8>>,
    pub(crate) cipher_suites: Vec<u8>,
    pub(crate) compression_methods: Vec<u8>,
    pub(crate) extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl SampleHello {
    pub(crate) fn with(extensions: &[(u16, Vec<u8>)]) -> Self {
        Self {
            version: 0x0303,
            session_id: vec![7; 32],
            cookie: None,
            cipher_suites: vec![0x0a, 0x0a, 0x13, 0x01],
            compression_methods: vec![0],
            extensions: Some(extensions.to_vec()),
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([9; 32]);
        body.extend(vector8(&self.session_id));
        if let Some(cookie) = &self.cookie {
            body.extend(vector8(cookie));
        }
        body.extend(vector16(&self.cipher_suites));
        body.extend(vector8(&self.compression_methods));
        if let Some(extensions) = &self.extensions {
            let all: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, body)| [kind.to_be_bytes().to_vec(), vector16(body)].concat())
                .collect();
            body.extend(vector16(&all));
        }
        body
    }

    pub(crate) fn message(&self) -> Vec<u8> {
        let body = self.body();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// A stream of TLS whose fragments have at most `size` bytes.
    pub(crate) fn records(&self, size: usize) -> Vec<u8> {
        self.message().chunks(size).flat_map(|part| [vec![22, 3, 1], vector16(part)].concat()).collect()
    }
}

pub(crate) fn server_name(name: &[u8]) -> (u16, Vec<u8>) {
    (0, vector16(&[vec![0], vector16(name)].concat()))
}

pub(crate) fn alpn(names: &[&[u8]]) -> (u16, Vec<u8>) {
    (16, vector16(&names.iter().flat_map(|name| vector8(name)).collect::<Vec<u8>>()))
}

pub(crate) fn key_share(groups: &[(u16, usize)]) -> (u16, Vec<u8>) {
    let shares =
        groups.iter().flat_map(|&(group, length)| [group.to_be_bytes().to_vec(), vector16(&vec![5; length])].concat());
    (51, vector16(&shares.collect::<Vec<u8>>()))
}

pub(crate) fn vector8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub(crate) fn vector16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// Lines of hexadecimal digits, one datagram each.
pub(crate) fn datagrams(text: &str) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}
