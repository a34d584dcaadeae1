//! What a client's certificate says of its holder, once its chain has been verified.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A verified client. Only subject alternative names count: of a subject's common name nobody knows what it was checked
/// for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// Its DNS names.
    pub names: Vec<String>,
    /// Its URIs.
    pub uris: Vec<String>,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
}

impl Certified {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = EndEntityCert::try_from(der)
            .map_err(|error| format!("its certificate cannot be read: {error}"))?;
        let mut fingerprint = String::new();
        for byte in digest(&SHA256, der).as_ref() {
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Ok(Self {
            names: certificate.valid_dns_names().map(str::to_owned).collect(),
            uris: certificate.valid_uri_names().map(str::to_owned).collect(),
            fingerprint,
        })
    }
}
