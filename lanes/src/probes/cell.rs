//! The matrix of authorization probes. A cell is a token in some state, for some scope, for some stream, and what is
//! tried with it. Not the product of all four: one thing is wrong in each, so that its reason is known.

pub(super) use model::probe::Operation;
use model::probe::{Outcome, ProbesConfig};
use model::target::{Authorization, Promise};

/// The state that a token is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is wrong with it.
    Valid,
    /// There is none.
    Missing,
    /// It is no token but a secret, and not the publishers'.
    WrongSecret,
    /// It expired a minute before the skew began.
    Expired,
    /// It expired, and the skew ended two seconds ago.
    PastSkew,
    /// It is within five seconds of the end of the skew.
    WithinSkew,
    /// It is valid in ten minutes.
    NotYetValid,
    /// Its `nbf` is five seconds further away than the skew.
    BeforeNbfSkew,
    /// Its `nbf` is in the future by five seconds less than the skew.
    WithinNbfSkew,
    /// Its issuer has revoked it.
    Revoked,
    /// Its `iat` is a minute further away than the greatest age.
    TooOld,
    /// The key before the current one signed it, which is still good.
    PreviousKey,
    /// A key signed it that was good once.
    RetiredKey,
    /// A key signed it that never was.
    UnknownKid,
    /// It names no key.
    MissingKid,
    /// It says `alg: none` and has no signature.
    AlgNone,
    /// HS256 with the bytes of the issuer's public ES256 key, which anybody has.
    Confused,
    /// It names the other algorithm than the one that it is signed by.
    SwappedAlg,
    /// Its payload was changed after it was signed: it grants the rival's stream too.
    TamperedPayload,
    /// Its signature was changed.
    TamperedSignature,
}

/// What a forged token may be refused for: the embedded lanes' reason first, then those of a real `SpacetimeDB`.
const FORGED: &[&str] = &[
    "invalid_signature",
    "InvalidSignature",
    "InvalidToken",
    "InvalidAlgorithm",
    "KeyIDNotFound",
    "unknown variant",
];

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Missing => "no-token",
            Self::WrongSecret => "wrong-secret",
            Self::Expired => "expired",
            Self::PastSkew => "past-skew",
            Self::WithinSkew => "within-skew",
            Self::NotYetValid => "not-yet-valid",
            Self::BeforeNbfSkew => "before-nbf-skew",
            Self::WithinNbfSkew => "within-nbf-skew",
            Self::Revoked => "revoked",
            Self::TooOld => "too-old",
            Self::PreviousKey => "previous-key",
            Self::RetiredKey => "retired-key",
            Self::UnknownKid => "unknown-kid",
            Self::MissingKid => "missing-kid",
            Self::AlgNone => "alg-none",
            Self::Confused => "confused-key",
            Self::SwappedAlg => "swapped-alg",
            Self::TamperedPayload => "tampered-payload",
            Self::TamperedSignature => "tampered-signature",
        }
    }

    /// The reasons of which one has to be given; `None` for a token that is good by what the target promises.
    fn reasons(self, promise: &Promise) -> Option<&'static [&'static str]> {
        let checks = &promise.token_checks;
        Some(match self {
            Self::Valid | Self::WithinSkew | Self::WithinNbfSkew | Self::PreviousKey => {
                return None;
            }
            // Where nobody is asked what he may do, he need not say who he is.
            Self::Missing if promise.authorization == Authorization::None => return None,
            Self::NotYetValid | Self::BeforeNbfSkew if !checks.not_before => return None,
            Self::Revoked if !checks.revocation => return None,
            Self::TooOld if checks.max_age.is_none() => return None,
            Self::Missing => &["missing_token", "unauthorized"],
            Self::WrongSecret => &["unauthorized", "invalid_signature", "InvalidToken"],
            Self::Expired | Self::PastSkew => &["token_expired", "ExpiredSignature"],
            Self::NotYetValid | Self::BeforeNbfSkew => {
                &["token_not_yet_valid", "ImmatureSignature"]
            }
            Self::Revoked => &["token_revoked"],
            Self::TooOld => &["token_too_old"],
            Self::RetiredKey | Self::UnknownKid => &["unknown_kid", "KeyIDNotFound"],
            // A real server tries every key that it has.
            Self::MissingKid => &["missing_kid", "InvalidSignature", "KeyIDNotFound"],
            Self::AlgNone
            | Self::Confused
            | Self::SwappedAlg
            | Self::TamperedPayload
            | Self::TamperedSignature => FORGED,
        })
    }
}

/// Which scope a token has, as seen from what is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The one that it takes.
    Right,
    /// Another.
    Wrong,
    /// None at all.
    None,
}

/// Whose stream it is, as seen from the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its organisation's, and granted.
    Own,
    /// Its organisation's, and not granted.
    Ungranted,
    /// The rival's: the canary.
    Foreign,
    /// Its organisation's, and the token is the rival's.
    RivalToken,
}

/// A cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) state: State,
    pub(super) scope: Scope,
    pub(super) place: Place,
    pub(super) operation: Operation,
}

/// What has to come of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// It is accepted.
    Accepted,
    /// It is refused, for one of these reasons; the first is that of the embedded lanes.
    Refused(&'static [&'static str]),
}

impl Cell {
    /// Such as `expired/resume` or `wrong-scope/append`.
    pub(super) fn name(self) -> String {
        let scope = match self.scope {
            Scope::Right => None,
            Scope::Wrong => Some("wrong-scope"),
            Scope::None => Some("no-scope"),
        };
        let place = match self.place {
            Place::Own => None,
            Place::Ungranted => Some("ungranted"),
            Place::Foreign => Some("foreign-tenant"),
            Place::RivalToken => Some("rival-token"),
        };
        let state = (self.state != State::Valid).then(|| self.state.name());
        let wrong: Vec<&str> = [state, scope, place].into_iter().flatten().collect();
        let wrong = if wrong.is_empty() {
            State::Valid.name().to_owned()
        } else {
            wrong.join("+")
        };
        format!("{wrong}/{}", self.operation.name())
    }

    /// Whether there is something to try and to expect: what the token service grants does not matter to a lane that
    /// takes any token for everything.
    pub(super) fn matters(self, promise: &Promise, config: &ProbesConfig) -> bool {
        let enforced = promise.authorization == Authorization::Enforced;
        let two = matches!(self.place, Place::Foreign | Place::RivalToken);
        let tried = config.operations.as_ref();
        tried.is_none_or(|tried| tried.contains(&self.operation))
            && (self.operation != Operation::Grant || enforced)
            && (!two || config.rival.is_some())
    }

    /// What has to come of it on a target that promises this, and says that of probes by their names.
    pub(super) fn expected(self, promise: &Promise, config: &ProbesConfig) -> Expected {
        match config.expect.get(&self.name()) {
            Some(Outcome::Accepted) => Expected::Accepted,
            // Whichever reasons a target has of its own.
            Some(Outcome::Refused) => Expected::Refused(&[""]),
            None => self.promised(promise),
        }
    }

    /// What follows from what a target promises.
    fn promised(self, promise: &Promise) -> Expected {
        if let Some(reasons) = self.state.reasons(promise) {
            return Expected::Refused(reasons);
        }
        let enforced = promise.authorization == Authorization::Enforced;
        if enforced && self.scope != Scope::Right {
            Expected::Refused(&["missing_scope"])
        } else if enforced && self.place != Place::Own {
            Expected::Refused(&["forbidden_topic", "forbidden_stream"])
        } else {
            Expected::Accepted
        }
    }
}

/// Every cell. Upgrades are dearer than calls over HTTP (they take from a lane's accept rate), so a state that both
/// would see is not tried in every way.
pub(super) fn cells() -> impl Iterator<Item = Cell> {
    use Operation::{Append, Connect, Grant, Read, Resume, Subscribe};
    use Place::{Foreign, Own, RivalToken, Ungranted};
    let states: [(State, &[Operation]); 20] = [
        (State::Valid, &[Subscribe, Append, Read]),
        (State::Missing, &[Connect, Append, Read]),
        (State::WrongSecret, &[Append, Read]),
        (State::Expired, &[Connect, Subscribe, Resume, Append, Read]),
        (State::PastSkew, &[Connect, Append]),
        (State::WithinSkew, &[Connect, Append]),
        (State::NotYetValid, &[Connect, Subscribe, Append, Read]),
        (State::BeforeNbfSkew, &[Connect, Read]),
        (State::WithinNbfSkew, &[Connect, Read]),
        (State::Revoked, &[Connect, Resume, Append, Read]),
        (State::TooOld, &[Connect, Resume, Append, Read]),
        (State::PreviousKey, &[Connect, Append]),
        (State::RetiredKey, &[Connect, Append, Read]),
        (State::UnknownKid, &[Connect, Append, Read]),
        (State::MissingKid, &[Connect, Append]),
        (State::AlgNone, &[Connect, Subscribe, Append, Read]),
        (State::Confused, &[Connect, Append, Read]),
        (State::SwappedAlg, &[Connect, Append]),
        (State::TamperedPayload, &[Subscribe, Append]),
        (State::TamperedSignature, &[Connect, Append, Read]),
    ];
    let places: [(State, Scope, Place, &[Operation]); 7] = [
        (State::Valid, Scope::Wrong, Own, &[Subscribe, Append, Read]),
        (State::Valid, Scope::None, Own, &[Subscribe, Append, Read]),
        (
            State::Valid,
            Scope::Right,
            Ungranted,
            &[Subscribe, Resume, Append, Read],
        ),
        (
            State::Valid,
            Scope::Right,
            Foreign,
            &[Grant, Subscribe, Resume, Append, Read],
        ),
        (
            State::Valid,
            Scope::Right,
            RivalToken,
            &[Subscribe, Append, Read],
        ),
        (State::WrongSecret, Scope::Right, Foreign, &[Append]),
        (
            State::TamperedPayload,
            Scope::Right,
            Foreign,
            &[Subscribe, Append, Read],
        ),
    ];
    let of = |state, scope, place, operations: &'static [Operation]| {
        operations.iter().map(move |operation| Cell {
            state,
            scope,
            place,
            operation: *operation,
        })
    };
    let states = states
        .into_iter()
        .flat_map(move |(state, operations)| of(state, Scope::Right, Own, operations));
    let places = places
        .into_iter()
        .flat_map(move |(state, scope, place, operations)| of(state, scope, place, operations));
    states.chain(places)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use model::quantity::Span;
    use model::target::TokenChecks;

    use super::*;
    use crate::probes::tests::config;

    fn refused(promise: &Promise) -> Vec<String> {
        cells()
            .filter(|cell| matches!(cell.expected(promise, &config()), Expected::Refused(_)))
            .map(Cell::name)
            .collect()
    }

    #[test]
    fn at_least_thirty_cells_have_to_be_refused_and_each_has_a_name_of_its_own() {
        let strict = Promise::strict(Span::ZERO);
        let refused = refused(&strict);
        let names: BTreeSet<String> = cells().map(Cell::name).collect();
        assert_eq!(names.len(), cells().count());
        assert!(refused.len() >= 30, "{refused:?}");
        let accepted: Vec<&String> = names
            .iter()
            .filter(|name| !refused.contains(name))
            .collect();
        assert_eq!(
            accepted,
            [
                "previous-key/append",
                "previous-key/connect",
                "valid/append",
                "valid/read",
                "valid/subscribe",
                "within-nbf-skew/connect",
                "within-nbf-skew/read",
                "within-skew/append",
                "within-skew/connect",
            ]
        );
    }

    #[test]
    fn what_a_target_does_not_promise_is_not_held_against_it() {
        let promise = Promise {
            authorization: Authorization::None,
            token_checks: TokenChecks::NONE,
            ..Promise::strict(Span::from_secs(60))
        };
        let still = refused(&promise);
        assert!(cells().any(|cell| !cell.matters(&promise, &config())));
        assert!(cells().all(|cell| cell.matters(&Promise::strict(Span::ZERO), &config())));
        for open in [
            "wrong-scope/append",
            "foreign-tenant/subscribe",
            "no-token/read",
            "not-yet-valid/connect",
            "revoked/connect",
            "too-old/read",
        ] {
            assert!(!still.contains(&open.to_owned()), "{open}");
        }
        for shut in ["expired/connect", "alg-none/append", "unknown-kid/read"] {
            assert!(still.contains(&shut.to_owned()), "{shut}");
        }
    }

    #[test]
    fn a_target_says_what_is_tried_and_what_comes_of_it() {
        let strict = Promise::strict(Span::ZERO);
        let own = ProbesConfig {
            rival: None,
            operations: Some(vec![Operation::Connect, Operation::Subscribe]),
            expect: [
                ("no-token/connect".to_owned(), Outcome::Accepted),
                ("valid/subscribe".to_owned(), Outcome::Refused),
            ]
            .into(),
            ..config()
        };
        let named = |name: &str| cells().find(|cell| cell.name() == name).unwrap();
        assert!(named("expired/connect").matters(&strict, &own));
        for left_out in [
            "expired/read",
            "foreign-tenant/subscribe",
            "rival-token/subscribe",
        ] {
            assert!(!named(left_out).matters(&strict, &own), "{left_out}");
        }
        let of = |name: &str| named(name).expected(&strict, &own);
        assert_eq!(of("no-token/connect"), Expected::Accepted);
        assert_eq!(of("valid/subscribe"), Expected::Refused(&[""]));
        assert_eq!(
            of("expired/connect"),
            named("expired/connect").promised(&strict)
        );
    }
}
