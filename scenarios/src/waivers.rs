//! Waivers: anomalies that somebody answers for, for a while. A file of their own beside the scenarios, in the same
//! language and refused with the same care.

use std::fmt;

use chrono::{Days, NaiveDate};
use model::anomaly::Anomaly;
use model::event::{canonical_json, hex};
use model::ids::Lane;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::parse as yaml;
use crate::source::Source;
use crate::tree::{Mark, Node};
use crate::typed;

/// Longer ahead than this nobody answers for anything.
const LONGEST_DAYS: u64 = 180;
/// More than this is no list of exceptions.
const MOST: usize = 50;

/// A day, UTC: `2026-03-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Date(NaiveDate);

impl Date {
    /// The day of an instant that is written as RFC 3339 writes it in UTC.
    #[must_use]
    pub fn of_rfc3339(instant: &str) -> Option<Self> {
        instant.get(..10)?.parse().ok()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.format("%Y-%m-%d").fmt(f)
    }
}

impl std::str::FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        NaiveDate::parse_from_str(text, "%Y-%m-%d")
            .ok()
            .filter(|_| text.len() == 10)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a date; write YYYY-MM-DD, such as 2026-03-01"))
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

/// A file of waivers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waivers {
    /// Each of them. No two are about the same anomaly of the same trial.
    pub waivers: Vec<Waiver>,
}

/// An anomaly that does not fail a trial, because somebody answers for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// Which.
    pub anomaly: Anomaly,
    /// Where, and how much of it.
    #[serde(default)]
    pub scope: Scope,
    /// Why it is acceptable for now.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// The last day on which it holds.
    pub expires: Date,
}

/// What a waiver covers. What is not stated is not restricted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Only trials of this scenario.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenario: Option<String>,
    /// Only trials on this lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<Lane>,
    /// No more than so many in one trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
}

impl Scope {
    /// Whether it covers a trial.
    #[must_use]
    pub fn covers(&self, scenario: &str, lane: Lane) -> bool {
        self.scenario.as_ref().is_none_or(|name| name == scenario)
            && self.lane.is_none_or(|other| other == lane)
    }

    /// Whether there is a trial that both cover.
    fn overlaps(&self, other: &Self) -> bool {
        fn meet<T: PartialEq>(a: Option<&T>, b: Option<&T>) -> bool {
            a.zip(b).is_none_or(|(a, b)| a == b)
        }
        meet(self.scenario.as_ref(), other.scenario.as_ref())
            && meet(self.lane.as_ref(), other.lane.as_ref())
    }
}

impl fmt::Display for Scope {
    /// `restart on khala, at most 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scenario.as_deref().unwrap_or("every scenario"))?;
        match self.lane {
            Some(lane) => write!(f, " on {lane}")?,
            None => f.write_str(" on every lane")?,
        }
        match self.at_most {
            Some(most) => write!(f, ", at most {most}"),
            None => Ok(()),
        }
    }
}

impl Waiver {
    /// Whether it no longer holds on a day.
    #[must_use]
    pub fn expired(&self, on: Date) -> bool {
        self.expires < on
    }
}

impl fmt::Display for Waiver {
    /// `gap in restart on khala, of team-sync`: its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}, of {}", self.anomaly, self.scope, self.owner)
    }
}

impl Waivers {
    /// The one that is about an anomaly of a trial.
    #[must_use]
    pub fn about(&self, anomaly: Anomaly, scenario: &str, lane: Lane) -> Option<&Waiver> {
        self.waivers
            .iter()
            .find(|waiver| waiver.anomaly == anomaly && waiver.scope.covers(scenario, lane))
    }

    /// `sha256:<hex>` over their canonical JSON.
    #[must_use]
    pub fn digest(&self) -> String {
        let value = serde_json::to_value(self).expect("waivers are texts and whole numbers");
        format!("sha256:{}", hex(&Sha256::digest(canonical_json(&value))))
    }
}

/// Waivers that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedWaivers {
    /// As they are written.
    pub waivers: Waivers,
    /// Those that have expired: with them a run can only be no-go.
    pub warnings: Vec<Diagnostic>,
}

/// Reads waivers and checks them as of a day.
///
/// # Errors
/// Everything that is wrong with them, as far as it could be told in one go; with the warnings.
pub fn parse(source: &Source, today: Date) -> Result<CheckedWaivers, Diagnostics> {
    let tree = yaml::tree(source)?;
    let waivers = typed::read::<Waivers>(&tree, source);
    let mut checks = Checks {
        tree: &tree,
        source,
        found: Vec::new(),
    };
    let waivers = match waivers {
        Ok(mut waivers) => {
            for waiver in &mut waivers.waivers {
                waiver.reason = one_line(&waiver.reason);
                waiver.owner = one_line(&waiver.owner);
            }
            checks.all(&waivers, today);
            Some(waivers)
        }
        Err(mistakes) => {
            checks.found.extend(mistakes);
            None
        }
    };
    let warnings = Diagnostics::sort_out(checks.found)?;
    let unreadable = || {
        let place = source.place(Mark::START);
        Diagnostic::error(place, "the waivers could not be read".to_owned())
    };
    // Whatever keeps them from being read is an error among those found.
    let waivers = waivers.ok_or_else(unreadable)?;
    Ok(CheckedWaivers { waivers, warnings })
}

/// They are printed beside figures, whatever the form in which YAML had them.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace(char::is_control, "\u{fffd}")
}

/// Whether an anomaly may be waived at all: one that let somebody see what is not theirs may not, whoever answers for
/// it.
const fn latches(anomaly: Anomaly) -> bool {
    matches!(anomaly, Anomaly::Leak | Anomaly::UnauthorizedSuccess)
}

struct Checks<'a> {
    tree: &'a Node,
    source: &'a Source,
    found: Vec<Diagnostic>,
}

impl Checks<'_> {
    fn error(&mut self, place: usize, field: &[&str], message: String, hint: &str) {
        let diagnostic = Diagnostic::error(self.place(place, field), message);
        self.found.push(diagnostic.hint(hint));
    }

    fn place(&self, place: usize, field: &[&str]) -> crate::diagnostic::Place {
        let place = place.to_string();
        let path: Vec<&str> = ["waivers", &place]
            .into_iter()
            .chain(field.iter().copied())
            .collect();
        typed::place(self.tree.origin_of(&path), self.source)
    }

    fn all(&mut self, waivers: &Waivers, today: Date) {
        if waivers.waivers.len() > MOST {
            let message = format!("{} waivers are more than {MOST}", waivers.waivers.len());
            let hint =
                "waivers are exceptions: mend the target, or change the limits of the scenario";
            self.error(MOST, &[], message, hint);
        }
        for (place, waiver) in waivers.waivers.iter().enumerate() {
            self.one(place, waiver, today);
            let earlier = waivers.waivers[..place].iter().position(|earlier| {
                earlier.anomaly == waiver.anomaly && earlier.scope.overlaps(&waiver.scope)
            });
            if let Some(earlier) = earlier {
                let anomaly = waiver.anomaly;
                let message = format!(
                    "`{anomaly}` of some trials is waived twice: here and as number {}",
                    earlier + 1
                );
                let hint = "which of the two answers must be clear: narrow the scopes, or keep one";
                self.error(place, &["anomaly"], message, hint);
            }
        }
    }

    fn one(&mut self, place: usize, waiver: &Waiver, today: Date) {
        if latches(waiver.anomaly) {
            let message = format!("`{}` cannot be waived", waiver.anomaly);
            let hint = "somebody saw what is not theirs: stop the drill and mend the target";
            self.error(place, &["anomaly"], message, hint);
        }
        for (field, text, hint) in [
            (
                "reason",
                &waiver.reason,
                "say why it is acceptable for now, and where it is tracked",
            ),
            (
                "owner",
                &waiver.owner,
                "name the person or the team that answers for it",
            ),
        ] {
            if text.trim().is_empty() {
                self.error(place, &[field], format!("the {field} is empty"), hint);
            }
        }
        if waiver.scope.at_most == Some(0) {
            let message = "a waiver of at most 0 waives nothing".to_owned();
            let hint = "remove the waiver, or say how many are acceptable";
            self.error(place, &["scope", "at_most"], message, hint);
        }
        let last = today.0.checked_add_days(Days::new(LONGEST_DAYS)).map(Date);
        if let Some(last) = last.filter(|last| waiver.expires > *last) {
            let message = format!(
                "`{}` is more than {LONGEST_DAYS} days ahead",
                waiver.expires
            );
            let hint = format!(
                "until {last} at the latest; renew it when somebody has looked at it again"
            );
            self.error(place, &["expires"], message, &hint);
        }
        if waiver.expired(today) {
            let message = format!(
                "the waiver expired on {}: with it the decision is no-go",
                waiver.expires
            );
            let diagnostic = Diagnostic::warning(self.place(place, &["expires"]), message);
            self.found
                .push(diagnostic.hint("renew it, or remove it and let the anomaly count"));
        }
    }
}
