//! What went wrong with TLS, in words of who has to mend it.

use std::error::Error;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError};

/// What a failure of TLS is about, and so which setting has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Who is trusted.
    Authority,
    /// What the server is called.
    Name,
    /// Until when its certificate is valid.
    Time,
    /// It speaks no TLS.
    Plain,
    /// The client's own certificate.
    Identity,
}

const OF_NO_AUTHORITY: &str = "of an authority that is not trusted here";
const FOR_ANOTHER: &str = "correct the URL's host, or the certificate";
const CLOCK: &str = "correct this host's clock";
const NO_TLS: &str = "does not speak TLS";
const CLIENT_CERTIFICATE: &str = "give the client its certificate and key";

/// What a [`reason`] is about; `None` for one that is not about TLS, or about all of it. It is told by the reason's own
/// words: errors of connections have become texts by the time that somebody asks whom to blame.
#[must_use]
pub fn trouble(reason: &str) -> Option<Trouble> {
    [
        (OF_NO_AUTHORITY, Trouble::Authority),
        (FOR_ANOTHER, Trouble::Name),
        (CLOCK, Trouble::Time),
        (NO_TLS, Trouble::Plain),
        (CLIENT_CERTIFICATE, Trouble::Identity),
    ]
    .into_iter()
    .find(|(words, _)| reason.contains(words))
    .map(|(_, trouble)| trouble)
}

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
    match error {
        InvalidCertificate(problem) => certificate(problem),
        AlertReceived(alert) => alerted(*alert),
        InvalidMessage(_) => {
            format!("the other side {NO_TLS}; use an address that does, or ws:// and http://")
        }
        NoCertificatesPresented => format!("no certificate was presented; {CLIENT_CERTIFICATE}"),
        PeerIncompatible(_) => {
            format!("{error}; TLS 1.2 and 1.3 with modern ciphers are spoken here")
        }
        _ => error.to_string(),
    }
}

fn certificate(problem: &CertificateError) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, UnknownIssuer,
    };
    match problem {
        UnknownIssuer => format!(
            "its certificate is {OF_NO_AUTHORITY}; name that authority's certificate as the one to trust"
        ),
        Expired => format!("its certificate has expired; renew it, or {CLOCK}"),
        ExpiredContext { time, not_after } => format!(
            "its certificate expired {} ago; renew it, or {CLOCK}",
            apart(*not_after, *time)
        ),
        NotValidYet => format!("its certificate is not valid yet; {CLOCK}"),
        NotValidYetContext { time, not_before } => format!(
            "its certificate is valid only in {}; {CLOCK}, or the certificate",
            apart(*time, *not_before)
        ),
        NotValidForName => format!("its certificate is for another host; {FOR_ANOTHER}"),
        NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "its certificate is for {}, not for `{}`; {FOR_ANOTHER}",
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
            return format!("it requires a client certificate; {CLIENT_CERTIFICATE}");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reason_is_about_is_told_by_its_words() {
        use CertificateError::{
            Expired, ExpiredContext, NotValidForName, NotValidYet, Revoked, UnknownIssuer,
        };
        let day = |day: u64| UnixTime::since_unix_epoch(std::time::Duration::from_hours(24 * day));
        let expired = ExpiredContext {
            time: day(3),
            not_after: day(1),
        };
        for (problem, about) in [
            (UnknownIssuer, Some(Trouble::Authority)),
            (NotValidForName, Some(Trouble::Name)),
            (Expired, Some(Trouble::Time)),
            (expired, Some(Trouble::Time)),
            (NotValidYet, Some(Trouble::Time)),
            (Revoked, None),
        ] {
            let text = explain(&rustls::Error::InvalidCertificate(problem));
            assert_eq!(trouble(&text), about, "{text}");
        }
        let required = alerted(AlertDescription::CertificateRequired);
        assert_eq!(trouble(&required), Some(Trouble::Identity));
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(trouble(&explain(&plain)), Some(Trouble::Plain));
        assert_eq!(trouble("connection refused"), None);
    }
}
