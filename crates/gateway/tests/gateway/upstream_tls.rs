//! Upstreams over TLS: which certificates are trusted.

use std::{fs, sync::Arc};

use crate::support::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

/// A server with a certificate of its own making, which it also writes into a file.
async fn server(folder: &TempDir) -> (String, String) {
    vorrang_gateway::install_crypto();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = folder.path().join("ca.pem");
    fs::write(&path, cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else {
                continue;
            };
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(answer).await;
            let _ = stream.shutdown().await;
        }
    });
    (
        format!("https://localhost:{port}/v1"),
        path.display().to_string(),
    )
}

#[tokio::test]
async fn upstream_certificate_is_trusted_only_as_ssl_verify_allows() {
    let folder = tempfile::tempdir().unwrap();
    let (base, ca) = server(&folder).await;
    let once = "router_settings: {num_retries: 0}\n";
    for (params, settings, served) in [
        ("", "", false),
        ("ssl_verify: true", "", false),
        ("ssl_verify: false", "", true),
        ("", "litellm_settings: {ssl_verify: false}\n", true),
        (
            "ssl_verify: true",
            "litellm_settings: {ssl_verify: 'False'}\n",
            false,
        ),
        (&format!("ssl_verify: '{ca}'"), "", true),
        (
            "",
            &format!("litellm_settings: {{ssl_verify: '{ca}'}}\n"),
            true,
        ),
    ] {
        let (router, _) = router(&one(&base, params, &format!("{once}{settings}")));
        let result = router.call(chat("")).await;
        assert_eq!(result.is_ok(), served, "{params} {settings}");
        if let Err(error) = result {
            assert_eq!(error.problem.status().as_u16(), 502, "{params} {settings}");
        }
    }
}
