//! The header of the PROXY protocol, versions 1 and 2, by which a proxy says whose connection it passes on.

use std::{io, net::IpAddr};

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED: usize = 16;
/// The second half of the byte after the signature.
const LOCAL: u8 = 0;

/// What follows the fixed part of version 2: addresses, and all that proxies add (TLS details, ids). Some hundred bytes are usual.
const MOST_BYTES: u16 = 4096;

/// A line of version 1 with its end.
const LONGEST_LINE: usize = 107;

const CONFIG: ParseConfig = ParseConfig {
    include_tlvs: false,
    allow_v1: true,
    allow_v2: true,
};

/// Reads the header, and not a byte more. `None`: the proxy's own connection, or one that comes by no IP address.
///
/// # Errors
/// `InvalidData`: what came is no such header.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let header = whole(stream).await?;
    if header.starts_with(SIGNATURE) && header[SIGNATURE.len()] & 0xf == LOCAL {
        // Its addresses are not to be looked at.
        return Ok(None);
    }
    let (parsed, _) = ProxyHeader::parse(&header, CONFIG).map_err(|_| malformed())?;
    let proxied = parsed.proxied_address();
    let proxied = proxied.filter(|proxied| proxied.protocol == Protocol::Stream);
    Ok(proxied.map(|proxied| proxied.source.ip().to_canonical()))
}

async fn whole(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut header = vec![0; SIGNATURE.len()];
    from.read_exact(&mut header).await?;
    if header == SIGNATURE {
        header.resize(FIXED, 0);
        from.read_exact(&mut header[SIGNATURE.len()..]).await?;
        let length = u16::from_be_bytes([header[FIXED - 2], header[FIXED - 1]]);
        let version = header[SIGNATURE.len()] >> 4;
        if version != 2 || header[SIGNATURE.len()] & 0xf > 1 || length > MOST_BYTES {
            return Err(malformed());
        }
        header.resize(FIXED + usize::from(length), 0);
        from.read_exact(&mut header[FIXED..]).await?;
        return Ok(header);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    // Its length is not known before its end, and what follows is not ours to read.
    while !header.ends_with(b"\r\n") {
        if header.len() >= LONGEST_LINE {
            return Err(malformed());
        }
        header.push(from.read_u8().await?);
    }
    Ok(header)
}

fn malformed() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "no header of the PROXY protocol",
    )
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, net::TcpListener};

    use super::*;

    /// What is read of `sent`, and what is left of it.
    async fn read_of(sent: &[u8]) -> (io::Result<Option<IpAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (mut client, mut server) = (client.unwrap(), accepted.unwrap().0);
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let read = read(&mut server).await;
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    }

    fn version_2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[command, family], &length, body].concat()
    }

    const FOUR: &[u8] = &[192, 0, 2, 1, 10, 0, 0, 1, 0, 80, 1, 187];

    #[tokio::test]
    async fn headers_of_both_versions_name_the_client_and_leave_what_follows() {
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[15] = 7;
        let with_tlvs = [FOUR, &[0x04, 0, 3, 1, 2, 3, 0xe0, 0, 1, 9]].concat();
        let unix = [7; 216];
        for (header, address) in [
            (version_2(0x21, 0x11, FOUR), Some("192.0.2.1")),
            (version_2(0x21, 0x11, &with_tlvs), Some("192.0.2.1")),
            (version_2(0x21, 0x21, &six), Some("2001::7")),
            // LOCAL, whatever its addresses say; no family; a Unix socket; UDP.
            (version_2(0x20, 0x11, FOUR), None),
            (version_2(0x20, 0x00, &[]), None),
            (version_2(0x21, 0x00, &[1, 2, 3]), None),
            (version_2(0x21, 0x31, &unix), None),
            (version_2(0x21, 0x12, FOUR), None),
            (
                b"PROXY TCP4 192.0.2.1 10.0.0.1 80 443\r\n".to_vec(),
                Some("192.0.2.1"),
            ),
            (
                b"PROXY TCP6 2001::7 2001::8 80 443\r\n".to_vec(),
                Some("2001::7"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
        ] {
            let sent = [&header, b"GET /".as_slice()].concat();
            let (read, rest) = read_of(&sent).await;
            let shown = String::from_utf8_lossy(&header);
            let expected = address.map(|address| address.parse().unwrap());
            assert_eq!(read.unwrap(), expected, "{shown:?}");
            assert_eq!(rest, b"GET /", "{shown:?}");
        }
    }

    #[tokio::test]
    async fn malformed_and_endless_headers_are_refused() {
        let long = vec![0; usize::from(MOST_BYTES) + 1];
        for header in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            version_2(0x11, 0x11, FOUR),
            version_2(0x22, 0x11, FOUR),
            version_2(0x21, 0x41, FOUR),
            version_2(0x21, 0x11, &FOUR[..11]),
            version_2(0x21, 0x21, FOUR),
            version_2(0x21, 0x11, &long),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 80\r\n".to_vec(),
            b"PROXY TCP4 a b 80 443\r\n".to_vec(),
            b"PROXY TCP5 1.1.1.1 1.1.1.1 1 1\r\n".to_vec(),
            [b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
        ] {
            let (read, _) = read_of(&header).await;
            let shown = String::from_utf8_lossy(&header);
            assert_eq!(
                read.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{shown:?}"
            );
        }
        let cut = version_2(0x21, 0x11, FOUR);
        let (read, _) = read_of(&cut[..20]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
