//! The credential by which a client asks for tokens: who it is, with a mark that only who knows the target's secret
//! can make. It stands for the session that a user of a real service would have logged in for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;

/// What a prober's credential signs.
const PROBE: &str = "probe";

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The organisation.
    pub org: String,
    /// The user.
    pub user: String,
}

/// The credential of a user.
#[must_use]
pub fn session_credential(secret: &str, org: &str, user: &str) -> String {
    let named = format!("{}.{}", BASE64.encode(org), BASE64.encode(user));
    let mark = hmac::sign(&key(secret), named.as_bytes());
    format!("{named}.{}", BASE64.encode(mark))
}

/// The credential by which a prober asks for tokens of any state ([`super::PROBE_TOKEN_PATH`]). No session credential
/// is one: those sign a name with a dot in it.
#[must_use]
pub fn probe_credential(secret: &str) -> String {
    let mark = hmac::sign(&key(secret), PROBE.as_bytes());
    format!("{PROBE}.{}", BASE64.encode(mark))
}

/// Whether a credential is a prober's, made with the secret.
#[must_use]
pub fn is_probe_credential(secret: &str, credential: &str) -> bool {
    let mark = credential
        .strip_prefix(PROBE)
        .and_then(|rest| BASE64.decode(rest.strip_prefix('.')?).ok());
    mark.is_some_and(|mark| hmac::verify(&key(secret), PROBE.as_bytes(), &mark).is_ok())
}

impl Session {
    /// Who a credential stands for; `None` when it was not made with the secret.
    #[must_use]
    pub fn of(secret: &str, credential: &str) -> Option<Self> {
        let (named, mark) = credential.rsplit_once('.')?;
        let mark = BASE64.decode(mark).ok()?;
        hmac::verify(&key(secret), named.as_bytes(), &mark).ok()?;
        let (org, user) = named.split_once('.')?;
        let text = |part: &str| String::from_utf8(BASE64.decode(part).ok()?).ok();
        Some(Self {
            org: text(org)?,
            user: text(user)?,
        })
    }
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_stands_for_its_user_under_its_secret_only() {
        let credential = session_credential("s", "org.a", "c0001");
        let session = Session {
            org: "org.a".to_owned(),
            user: "c0001".to_owned(),
        };
        assert_eq!(Session::of("s", &credential), Some(session));
        assert_eq!(Session::of("t", &credential), None);
        let rival = session_credential("t", "org.b", "c0001");
        let (named, _) = rival.rsplit_once('.').unwrap();
        let (_, mark) = credential.rsplit_once('.').unwrap();
        assert_eq!(Session::of("s", &format!("{named}.{mark}")), None);
        assert_eq!(Session::of("s", ""), None);
    }

    #[test]
    fn a_prober_is_no_user_and_a_user_no_prober() {
        let prober = probe_credential("s");
        assert!(is_probe_credential("s", &prober));
        assert!(!is_probe_credential("t", &prober));
        assert_eq!(Session::of("s", &prober), None);
        let user = session_credential("s", "org.a", "probe");
        assert!(!is_probe_credential("s", &user));
        assert!(!is_probe_credential("s", "probe."));
    }
}
