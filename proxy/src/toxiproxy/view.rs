//! What is answered.

use host::http::Failure;
use serde::{Serialize, Serializer};

use crate::identity::IdentifyBy;
use crate::toxics::Settings;

/// A proxy, as its clients see it.
#[derive(Debug, Serialize)]
pub(super) struct ProxyView {
    pub(super) name: String,
    pub(super) listen: String,
    pub(super) upstream: String,
    pub(super) enabled: bool,
    pub(super) toxics: Vec<ToxicView>,
    /// Only where it was set, as some clients take no key that they do not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identify_by: Option<IdentifyBy>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<TlsView>,
}

/// TLS that ends at a proxy. Nothing of a key is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TlsView {
    pub(super) self_issued: bool,
    /// The file's name, or `inline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<String>,
    /// `plain` or `tls`.
    pub(super) upstream: &'static str,
    /// The file's name, or `inline`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) upstream_ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server_name: Option<String>,
}

/// A toxic, as its clients see it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ToxicView {
    pub(super) attributes: Settings,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) stream: String,
    #[serde(serialize_with = "ratio")]
    pub(super) toxicity: f64,
    /// Milli-seconds; only where it was set, as some clients take no key that they do not know.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub(super) lifetime: Option<u64>,
}

/// As Go writes a number: a whole one without a fraction.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn ratio<S: Serializer>(ratio: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if *ratio <= 0.0 {
        serializer.serialize_u8(0)
    } else if *ratio >= 1.0 {
        serializer.serialize_u8(1)
    } else {
        serializer.serialize_f64(*ratio)
    }
}

/// What `POST /populate` answers.
#[derive(Debug, Serialize)]
pub(super) struct Populated {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Null where there are none.
    proxies: Option<Vec<ProxyView>>,
}

impl Populated {
    pub(super) fn new(proxies: Vec<ProxyView>, failure: Option<&Failure>) -> Self {
        Self {
            error: failure.map(|failure| failure.message.clone()),
            status: failure.map(|failure| failure.status.as_u16()),
            proxies: (!proxies.is_empty()).then_some(proxies),
        }
    }
}
