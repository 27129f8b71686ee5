//! TLS to upstreams: which certificates are believed.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::config::Verify;

/// HTTP/2 where the server has it.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Where TLS cannot be had as the configuration says, no server is believed.
pub(super) fn config(verify: &Verify) -> Arc<ClientConfig> {
    let mut config = verified(verify).unwrap_or_else(|error| {
        // No root certificates in this system: plain HTTP and mocks work all the same, TLS fails call by call.
        tracing::error!(error = %error, "no TLS to upstreams: is a package of root certificates installed?");
        ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    });
    config.alpn_protocols = PROTOCOLS.map(Vec::from).into();
    Arc::new(config)
}

fn verified(verify: &Verify) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder();
    let builder = match verify {
        Verify::System => builder.with_platform_verifier()?,
        Verify::Only(pem) => builder.with_root_certificates(only(pem)?),
        Verify::Nothing => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified)),
    };
    Ok(builder.with_no_client_auth())
}

/// The certificates of a text in PEM. The configuration has read it.
fn only(pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| Error::General(error.to_string()))?;
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Believes whoever answers.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = CryptoProvider::get_default().map(|provider| (**provider).clone());
        let provider = provider.unwrap_or_else(ring::default_provider);
        let known = provider.signature_verification_algorithms;
        // What no verifier of the provider knows is not verified either.
        let mut schemes = known.supported_schemes();
        let old = [
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::ED448,
        ];
        for scheme in old {
            if !schemes.contains(&scheme) {
                schemes.push(scheme);
            }
        }
        schemes
    }
}
