//! What went wrong with TLS, in words of who has to mend it.

use std::error::Error;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// Why a connection failed: where it was TLS that did, with the remedy; else the error as it is.
#[must_use]
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut at = Some(error);
    while let Some(here) = at {
        if let Some(tls) = here.downcast_ref::<rustls::Error>() {
            return explain(tls);
        }
        // An io::Error shows what it wraps as its source only from the second level on.
        at = match here
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => here.source(),
        };
    }
    error.to_string()
}

fn explain(error: &rustls::Error) -> String {
    use rustls::Error::{
        AlertReceived, InvalidCertificate, InvalidMessage, NoCertificatesPresented,
        PeerIncompatible,
    };
    let text = match error {
        InvalidCertificate(problem) => return certificate(problem),
        AlertReceived(alert) => return alerted(*alert),
        InvalidMessage(_) => {
            "the other side does not speak TLS; use an address that does, or ws:// and http://"
        }
        NoCertificatesPresented => {
            "no certificate was presented; give the client its certificate and key"
        }
        PeerIncompatible(_) => {
            return format!("{error}; TLS 1.2 and 1.3 with modern ciphers are spoken here");
        }
        _ => return error.to_string(),
    };
    text.to_owned()
}

fn certificate(problem: &CertificateError) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match problem {
        UnknownIssuer => "its certificate is of an authority that is not trusted here; name that \
                          authority's certificate as the one to trust"
            .to_owned(),
        Expired => "its certificate has expired; renew it, or correct this host's clock".to_owned(),
        ExpiredContext { time, not_after } => format!(
            "its certificate expired {} ago; renew it, or correct this host's clock",
            apart(*not_after, *time)
        ),
        NotValidYet => "its certificate is not valid yet; correct this host's clock".to_owned(),
        NotValidYetContext { time, not_before } => format!(
            "its certificate is valid only in {}; correct this host's clock, or the certificate",
            apart(*time, *not_before)
        ),
        NotValidForName => {
            "its certificate is for another host; correct the URL's host, or the certificate"
                .to_owned()
        }
        NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "its certificate is for {}, not for `{}`; correct the URL's host, or the certificate",
            bare(presented),
            expected.to_str()
        ),
        other => format!("its certificate is not acceptable: {other}"),
    }
}

/// Names out of rustls's `DnsName("…")` and `IpAddress(…)`.
fn bare(presented: &[String]) -> String {
    let names: Vec<_> = presented
        .iter()
        .map(|name| {
            let inner = name.split_once('(').map_or(&**name, |(_, inner)| inner);
            inner.trim_end_matches(')').trim_matches('"')
        })
        .collect();
    match &*names {
        [] => "no host at all".to_owned(),
        names => names.join(", "),
    }
}

/// Alerts are all that the other side says, and it alone knows more.
fn alerted(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    let text = match alert {
        Alert::CertificateRequired | Alert::NoCertificate => {
            "it requires a client certificate; give the client its certificate and key"
        }
        Alert::UnknownCA
        | Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::CertificateExpired
        | Alert::CertificateRevoked
        | Alert::UnsupportedCertificate
        | Alert::DecryptError
        | Alert::AccessDenied => {
            return format!(
                "it does not accept the certificate that it was shown ({alert:?}); see that the other side trusts its \
                 authority, and that it is valid and for that name"
            );
        }
        Alert::HandshakeFailure => {
            "it refused the handshake: no cipher in common, or it requires a client certificate"
        }
        Alert::ProtocolVersion => "it speaks neither TLS 1.2 nor 1.3",
        Alert::UnrecognisedName => "it serves no host of that name; correct the URL's host",
        Alert::NoApplicationProtocol => "it does not speak HTTP/1.1, which WebSockets begin with",
        _ => return format!("it ended TLS with the alert {alert:?}"),
    };
    text.to_owned()
}

fn apart(earlier: UnixTime, later: UnixTime) -> String {
    let seconds = later.as_secs().saturating_sub(earlier.as_secs());
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
