//! A certificate authority. One for as long as a process lives never writes its key anywhere, and what it has issued is worth
//! nothing a day later; one for operators is kept in files by whoever made it.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use model::target::TlsIdentity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::{TlsError, unusable};

/// Longer than any run.
const LIFETIME: Duration = Duration::from_hours(24);
/// Clocks of other hosts may be behind.
const SKEW: Duration = Duration::from_hours(1);

/// Issues certificates that whoever trusts its own accepts.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, with a key of its own, named as certificates' issuer.
    ///
    /// # Errors
    /// No key could be made.
    pub fn ephemeral(name: &str) -> Result<Self, TlsError> {
        Self::lasting(name, LIFETIME)
    }

    /// The same for a process that may live for so long. What it issues is still worth nothing a day later.
    ///
    /// # Errors
    /// As [`Authority::ephemeral`].
    pub fn lasting(name: &str, lifetime: Duration) -> Result<Self, TlsError> {
        let make = || {
            CertifiedIssuer::self_signed(authority_params(name, lifetime)?, KeyPair::generate()?)
        };
        make()
            .map(Self)
            .map_err(|error| unusable("an ephemeral authority", error))
    }

    /// Its certificate as PEM: what has to be trusted.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these hosts and addresses, for servers and clients, with a new key.
    ///
    /// # Errors
    /// A name that no certificate can bear.
    pub fn issue(&self, names: &[&str]) -> Result<TlsIdentity, TlsError> {
        self.issue_for(names, lifetime())
    }

    /// The same for another time than from now on.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn issue_for(
        &self,
        names: &[&str],
        valid: Range<SystemTime>,
    ) -> Result<TlsIdentity, TlsError> {
        let make = || {
            let mut params = params(names.first().unwrap_or(&"faultlane"), names, valid)?;
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate()?;
            let leaf = params.signed_by(&key, &self.0)?;
            Ok::<_, rcgen::Error>(TlsIdentity {
                chain_pem: leaf.pem(),
                key_pem: key.serialize_pem(),
            })
        };
        make().map_err(|error| unusable("a certificate for these names", error))
    }
}

/// What a certificate of an operator's authority is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// To be shown by a server.
    Server,
    /// To be shown by a client.
    Client,
}

/// An operator's authority, with its key at hand.
pub struct Root {
    name: String,
    key: KeyPair,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Root {
    /// A new one that is called `name` for so long, and its certificate and key as PEM.
    ///
    /// # Errors
    /// No key could be made.
    pub fn begin(name: &str, lifetime: Duration) -> Result<(Self, TlsIdentity), TlsError> {
        let make = || {
            let key = KeyPair::generate()?;
            let identity = TlsIdentity {
                chain_pem: authority_params(name, lifetime)?.self_signed(&key)?.pem(),
                key_pem: key.serialize_pem(),
            };
            let name = name.to_owned();
            Ok::<_, rcgen::Error>((Self { name, key }, identity))
        };
        make().map_err(|error| unusable("a new authority", error))
    }

    /// The one that was called `name` when [`Root::begin`] made this key.
    ///
    /// # Errors
    /// It is no key.
    pub fn resume(name: &str, key_pem: &str) -> Result<Self, TlsError> {
        let key =
            KeyPair::from_pem(key_pem).map_err(|error| unusable("the authority's key", error))?;
        let name = name.to_owned();
        Ok(Self { name, key })
    }

    /// A certificate with a new key, for these hosts and addresses and with these URIs, valid for so long.
    ///
    /// # Errors
    /// A name that no certificate can bear.
    pub fn issue(
        &self,
        names: &[&str],
        uris: &[String],
        purpose: Use,
        lifetime: Duration,
    ) -> Result<TlsIdentity, TlsError> {
        let make = || {
            let now = SystemTime::now();
            let first = names.first().unwrap_or(&"faultlane");
            let mut params = params(first, names, now - SKEW..now + lifetime)?;
            for uri in uris {
                params
                    .subject_alt_names
                    .push(SanType::URI(uri.as_str().try_into()?));
            }
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            // Of one kind only: an agent's certificate opens no other agent's door.
            params.extended_key_usages = vec![match purpose {
                Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
            }];
            let authority = authority_params(&self.name, lifetime)?;
            let key = KeyPair::generate()?;
            let leaf = params.signed_by(&key, &Issuer::from_params(&authority, &self.key))?;
            Ok::<_, rcgen::Error>(TlsIdentity {
                chain_pem: leaf.pem(),
                key_pem: key.serialize_pem(),
            })
        };
        make().map_err(|error| unusable("a certificate for these names", error))
    }
}

fn authority_params(name: &str, lifetime: Duration) -> Result<CertificateParams, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = params(name, &[], now - SKEW..now + lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    name: &str,
    names: &[&str],
    valid: Range<SystemTime>,
) -> Result<CertificateParams, rcgen::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = valid.start.into();
    params.not_after = valid.end.into();
    Ok(params)
}

fn lifetime() -> Range<SystemTime> {
    let now = SystemTime::now();
    now - SKEW..now + LIFETIME
}
