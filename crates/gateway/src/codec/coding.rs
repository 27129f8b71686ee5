//! Content codings (RFC 9110, 8.4): which of them a client takes, and an answer's bytes without theirs.

use std::io;

use bytes::Bytes;
use compression_codecs::{
    BrotliDecoder, DecodeV2, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder,
    core::util::{PartialBuffer, WriteBuffer},
    zstd::params::DParameter,
};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};

/// The largest window of zstd as a content coding, 8 MB (RFC 9659): what a decoder may hold in memory.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How much is decoded at once: one coded chunk may stand for megabytes.
const PIECE_BYTES: usize = 16 * 1024;

/// A coding that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// A coding that cannot be read, or several on top of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

impl Coding {
    fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            "br" => Some(Self::Brotli),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What an answer is coded with; `None`: nothing.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Unreadable> {
        let named = headers.get_all(header::CONTENT_ENCODING).into_iter();
        let named: Vec<_> = named
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
            .collect();
        match named.as_slice() {
            [] => Ok(None),
            [name] => Self::named(name).map(Some).ok_or(Unreadable(name.clone())),
            several => Err(Unreadable(several.join(", "))),
        }
    }

    /// Whether a client with this `accept-encoding` takes it. Without the header it takes none: few clients that name
    /// no coding can decode one.
    pub(crate) fn accepted(self, accept: Option<&str>) -> bool {
        let named = |wanted: Option<Self>| {
            preferences(accept)
                .find(|one| match wanted {
                    Some(coding) => Self::named(one.name) == Some(coding),
                    None => one.name == "*",
                })
                .map(|one| one.wanted)
        };
        named(Some(self)).or_else(|| named(None)).unwrap_or(false)
    }
}

/// One member of an `accept-encoding`.
struct Preference<'a> {
    whole: &'a str,
    name: &'a str,
    /// Its weight is not zero.
    wanted: bool,
}

fn preferences(accept: Option<&str>) -> impl Iterator<Item = Preference<'_>> {
    accept.unwrap_or_default().split(',').map(|whole| {
        let (name, rest) = whole.split_once(';').unwrap_or((whole, ""));
        let weight = rest.trim().strip_prefix("q=").map(str::parse::<f64>);
        Preference {
            whole: whole.trim(),
            name: name.trim(),
            wanted: !matches!(weight, Some(Ok(0.0))),
        }
    })
}

/// The `accept-encoding` for the upstream: of the client's, the codings through which usage can be read; else none.
pub(crate) fn negotiated(accept: Option<&str>) -> HeaderValue {
    let readable: Vec<_> = preferences(accept)
        .filter(|one| Coding::named(one.name).is_some() && one.wanted)
        .map(|one| one.whole)
        .collect();
    HeaderValue::from_str(&readable.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("identity"))
}

/// Takes a coding off, piece by piece, in bounded memory.
pub(crate) struct Decoder {
    coding: Coding,
    /// From the first byte on: `deflate` may be one of two formats.
    inner: Option<Box<dyn DecodeV2 + Send>>,
    /// The last piece was full: there may be more without more input.
    full: bool,
    ended: bool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Decoder").field(&self.coding).finish()
    }
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> Self {
        Self {
            coding,
            inner: None,
            full: false,
            ended: false,
        }
    }

    /// Decodes into `out` what fits, and takes what it used off `input`. Zero: it needs more input.
    fn piece(&mut self, input: &mut &[u8], out: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut output = WriteBuffer::new_initialized(out);
            let used = match (input.first(), &mut self.inner) {
                (None, Some(inner)) if self.full => {
                    inner.flush(&mut output)?;
                    0
                }
                (None, _) => return Ok(0),
                (Some(_), Some(inner)) if self.ended => {
                    if !matches!(self.coding, Coding::Gzip | Coding::Zstd) {
                        *input = &[];
                        return Ok(0);
                    }
                    // Another member, or frame, of the same answer.
                    inner.reinit()?;
                    self.ended = false;
                    continue;
                }
                (Some(first), inner) => {
                    let inner = inner.get_or_insert_with(|| self.coding.decoder(*first));
                    let mut partial = PartialBuffer::new(*input);
                    self.ended = inner.decode(&mut partial, &mut output)?;
                    partial.written_len()
                }
            };
            let written = output.written_len();
            self.full = output.has_no_spare_space();
            if used == 0 && written == 0 && !self.ended && !input.is_empty() {
                return Err(io::Error::other("the decoder makes no progress"));
            }
            *input = &input[used..];
            if written > 0 || input.is_empty() {
                return Ok(written);
            }
        }
    }

    /// Gives all that the bytes stand for to `sink`, which may end it.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = [0; PIECE_BYTES];
        loop {
            match self.piece(&mut input, &mut out)? {
                0 => return Ok(()),
                written => sink(&out[..written])?,
            }
        }
    }

    /// The answer has ended: its coding has, too, or it was cut.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) if !self.ended => {
                let mut out = [0; 1];
                let whole = inner.finish(&mut WriteBuffer::new_initialized(&mut out))?;
                whole
                    .then_some(())
                    .ok_or(io::ErrorKind::UnexpectedEof.into())
            }
            _ => Ok(()),
        }
    }
}

impl Coding {
    fn decoder(self, first: u8) -> Box<dyn DecodeV2 + Send> {
        match self {
            Self::Gzip => Box::new(GzipDecoder::new()),
            // A zlib header names deflate with a window of at most 32 KB; some servers send deflate without one.
            Self::Deflate if first & 0x0f == 8 && first >> 4 <= 7 => Box::new(ZlibDecoder::new()),
            Self::Deflate => Box::new(DeflateDecoder::new()),
            Self::Brotli => Box::new(BrotliDecoder::new()),
            Self::Zstd => Box::new(ZstdDecoder::new_with_params(&[DParameter::window_log_max(
                ZSTD_WINDOW_LOG,
            )])),
        }
    }
}

/// A body without its coding, for a client that did not ask for one.
pub(crate) fn decoded<E: From<io::Error> + Send + 'static>(
    chunks: impl Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    coding: Coding,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    let state = (chunks, Decoder::new(coding), Bytes::new());
    stream::try_unfold(state, |(mut chunks, mut decoder, mut input)| async move {
        let mut out = vec![0; PIECE_BYTES];
        loop {
            let mut rest = &input[..];
            let written = decoder.piece(&mut rest, &mut out)?;
            let used = input.len() - rest.len();
            bytes::Buf::advance(&mut input, used);
            if written > 0 {
                out.truncate(written);
                return Ok(Some((Bytes::from(out), (chunks, decoder, input))));
            }
            match chunks.next().await {
                Some(chunk) => input = chunk?,
                None => {
                    decoder.finish()?;
                    return Ok(None);
                }
            }
        }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use compression_codecs::{
        BrotliEncoder, DeflateEncoder, EncodeV2, GzipEncoder, ZlibEncoder, ZstdEncoder,
        core::Level, flate::params::FlateEncoderParams,
    };
    use futures_util::TryStreamExt as _;

    use super::*;

    /// A text in a coding, by the encoder's default parameters.
    pub(crate) fn encoded(mut encoder: impl EncodeV2, text: &[u8]) -> Vec<u8> {
        let mut out = vec![0; text.len() + 1024];
        let mut output = WriteBuffer::new_initialized(&mut out);
        let mut input = PartialBuffer::new(text);
        while !input.unwritten().is_empty() {
            encoder.encode(&mut input, &mut output).unwrap();
        }
        assert!(encoder.finish(&mut output).unwrap());
        let length = output.written_len();
        out.truncate(length);
        out
    }

    fn params() -> FlateEncoderParams {
        Level::Default.into()
    }

    pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
        encoded(GzipEncoder::new(params()), text)
    }

    fn all(text: &[u8]) -> Vec<(Coding, Vec<u8>)> {
        vec![
            (Coding::Gzip, gzip(text)),
            (Coding::Gzip, [gzip(&text[..3]), gzip(&text[3..])].concat()),
            (Coding::Deflate, encoded(ZlibEncoder::new(params()), text)),
            (
                Coding::Deflate,
                encoded(DeflateEncoder::new(params()), text),
            ),
            (
                Coding::Brotli,
                encoded(BrotliEncoder::new(Default::default()), text),
            ),
            (Coding::Zstd, encoded(ZstdEncoder::new(3), text)),
        ]
    }

    fn text() -> Vec<u8> {
        let words = (0..3_000u32).map(|n| format!("word {} ", n.wrapping_mul(2_654_435_761) % 977));
        words.collect::<String>().into_bytes()
    }

    fn headers(codings: &[&'static str]) -> HeaderMap {
        let name = header::CONTENT_ENCODING;
        let value = |coding: &&'static str| (name.clone(), HeaderValue::from_static(coding));
        codings.iter().map(value).collect()
    }

    #[test]
    fn decoding_ignores_chunk_boundaries() {
        let text = text();
        for (coding, bytes) in all(&text) {
            for cut in [1, 7, 1000, usize::MAX] {
                let mut decoder = Decoder::new(coding);
                let mut decoded = Vec::new();
                for chunk in bytes.chunks(cut) {
                    let sink = |piece: &[u8]| {
                        decoded.extend_from_slice(piece);
                        Ok(())
                    };
                    decoder.feed(chunk, sink).unwrap();
                }
                assert!(decoded == text, "{coding:?} by {cut}");
                decoder.finish().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn truncated_or_uncoded_body_is_a_decoding_error() {
        let text = text();
        for (coding, bytes) in all(&text) {
            let body = |bytes: &[u8]| {
                let bytes = Bytes::copy_from_slice(bytes);
                let chunks = stream::iter([Ok::<_, io::Error>(bytes)]);
                decoded(chunks, coding).try_collect::<Vec<Bytes>>()
            };
            assert!(body(&bytes).await.unwrap().concat() == text, "{coding:?}");
            let cut = body(&bytes[..bytes.len() - 9]).await;
            assert!(cut.is_err(), "{coding:?}");
            assert!(body(b"").await.unwrap().is_empty());
        }
        let plain = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"{\"no\":\"gzip\"}"))]);
        let body: io::Result<Vec<Bytes>> = decoded(plain, Coding::Gzip).try_collect().await;
        assert!(body.is_err());
    }

    #[test]
    fn accept_encoding_upstream_lists_what_client_accepts_and_gateway_decodes() {
        for (accept, offered) in [
            (None, "identity"),
            (Some(""), "identity"),
            (Some("*"), "identity"),
            (Some("gzip, deflate, br, zstd"), "gzip, deflate, br, zstd"),
            (Some("compress, GZIP;q=0.5,x"), "GZIP;q=0.5"),
            (Some("gzip;q=0, br; q=0.000"), "identity"),
            (Some("gz\u{e9}ip"), "identity"),
        ] {
            assert_eq!(negotiated(accept), offered, "{accept:?}");
        }
    }

    #[test]
    fn content_coding_is_accepted_only_if_accept_encoding_allows_it() {
        for (accept, accepted) in [
            (None, false),
            (Some("br"), false),
            (Some("br, gzip;q=0.1"), true),
            (Some("gzip;q=0, *"), false),
            (Some("br;q=0, *;q=1"), true),
            (Some("X-GZIP"), true),
        ] {
            assert_eq!(Coding::Gzip.accepted(accept), accepted, "{accept:?}");
        }
    }

    #[test]
    fn only_single_known_content_coding_is_readable() {
        assert_eq!(Coding::of(&headers(&[])), Ok(None));
        assert_eq!(Coding::of(&headers(&["identity"])), Ok(None));
        assert_eq!(Coding::of(&headers(&["x-gzip"])), Ok(Some(Coding::Gzip)));
        assert_eq!(Coding::of(&headers(&["", "Br"])), Ok(Some(Coding::Brotli)));
        let unreadable = |text: &str| Err(Unreadable(text.into()));
        assert_eq!(Coding::of(&headers(&["gzip, br"])), unreadable("gzip, br"));
        assert_eq!(
            Coding::of(&headers(&["gzip", "br"])),
            unreadable("gzip, br")
        );
        assert_eq!(Coding::of(&headers(&["compress"])), unreadable("compress"));
    }

    proptest::proptest! {
        #[test]
        fn decoder_accepts_or_rejects_any_bytes_without_panic(bytes: Vec<u8>, cut in 1..9usize) {
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd] {
                let mut decoder = Decoder::new(coding);
                let mut chunks = bytes.chunks(cut);
                let _ = chunks.try_for_each(|chunk| decoder.feed(chunk, |_| Ok(())));
                let _ = decoder.finish();
            }
        }
    }
}
