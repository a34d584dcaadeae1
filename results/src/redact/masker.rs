//! What is known to be secret is masked wherever it stands, whatever it looks like.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{MASK, is_word, mask, mask_json};

/// A shorter literal is masked where it is a word by itself: within longer words and digests it stands by chance.
const ANYWHERE: usize = 8;

/// Masks literals, then whatever looks like a credential. Without literals it is [`mask`].
#[derive(Clone, Default)]
pub struct Masker {
    /// Longest first, so that none is taken apart by a part of it.
    literals: Vec<String>,
}

// By hand: it is made of secrets.
impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker").finish_non_exhaustive()
    }
}

impl Masker {
    /// One that knows these secrets, also as JSON spells them.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut known = BTreeSet::new();
        for secret in secrets {
            let spelled = Value::from(secret).to_string();
            known.insert(spelled[1..spelled.len() - 1].to_owned());
            known.insert(secret.to_owned());
        }
        let mut literals: Vec<String> = known.into_iter().collect();
        literals.retain(|literal| !MASK.contains(literal.as_str()));
        literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
        Self { literals }
    }

    /// The same without the literals that stand in this name, by which evidence is found.
    #[must_use]
    pub fn sparing(mut self, name: &str) -> Self {
        self.literals.retain(|literal| hide(name, literal) == name);
        self
    }

    /// The text with everything masked that is known to be secret or looks like it.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let fold = |text: String, literal: &String| hide(&text, literal);
        mask(&self.literals.iter().fold(text.to_owned(), fold))
    }

    /// Masks every text in a JSON value, names of fields included.
    #[must_use]
    pub fn mask_json(&self, value: Value) -> Value {
        mask_json(self.literals.iter().fold(value, hide_json))
    }

    /// The value with every text in it masked. A literal that is a word of the value's own type, such as the name of a
    /// lane, stays: without it the value could not be read.
    ///
    /// # Errors
    /// The value is not JSON, or no longer of its type once masked.
    pub(crate) fn clean<T: Serialize + DeserializeOwned>(
        &self,
        value: &T,
    ) -> serde_json::Result<T> {
        let bare = serde_json::to_value(value)?;
        if let Ok(clean) = serde_json::from_value(self.mask_json(bare.clone())) {
            return Ok(clean);
        }
        let spared = self.literals.iter().fold(bare, |value, literal| {
            let hidden = hide_json(value.clone(), literal);
            let reads = serde_json::from_value::<T>(hidden.clone()).is_ok();
            if reads { hidden } else { value }
        });
        serde_json::from_value(mask_json(spared))
    }
}

fn hide_json(value: Value, literal: &String) -> Value {
    match value {
        Value::String(text) => Value::String(hide(&text, literal)),
        Value::Array(values) => values
            .into_iter()
            .map(|value| hide_json(value, literal))
            .collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (hide(&name, literal), hide_json(value, literal)))
            .collect(),
        other => other,
    }
}

fn hide(text: &str, literal: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(literal) {
        let (before, after) = (&rest[..at], &rest[at + literal.len()..]);
        out.push_str(before);
        let joined = out.chars().next_back().is_some_and(is_word)
            || after.chars().next().is_some_and(is_word);
        let by_chance = joined && literal.len() < ANYWHERE;
        out.push_str(if by_chance { literal } else { MASK });
        rest = after;
    }
    out.push_str(rest);
    // Long answers are cut off, maybe within a secret.
    let cut = (ANYWHERE..literal.len()).rev().find_map(|length| {
        let begun = literal.get(..length)?;
        out.strip_suffix(begun).map(str::len)
    });
    if let Some(kept) = cut {
        out.truncate(kept);
        out.push_str(MASK);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::ids::Lane;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_known_is_masked_whatever_surrounds_it() {
        let masker = Masker::new(["a-session", "s3cr", "say \"it\" so"]);
        for (text, expected) in [
            ("bad session a-session in x", "bad session [redacted] in x"),
            ("xa-sessiony", "x[redacted]y"),
            ("Bearer a-session", "Bearer [redacted]"),
            ("code=s3cr&v=2", "code=[redacted]&v=2"),
            (
                "{\"got\": \"say \\\"it\\\" so\"}",
                "{\"got\": \"[redacted]\"}",
            ),
            ("it was a-sessio", "it was [redacted]"),
            ("it was a-sess", "it was a-sess"),
            ("sha256:beefs3cr00", "sha256:beefs3cr00"),
            ("token=other", "token=[redacted]"),
        ] {
            assert_eq!(masker.mask(text), expected);
            assert_eq!(masker.mask(expected), expected, "masked once and for all");
        }
        let value = json!({"a-session": ["a-session", 1], "token": "x"});
        let expected = json!({MASK: [MASK, 1], "token": MASK});
        assert_eq!(masker.mask_json(value), expected);
        assert!(!format!("{masker:?}").contains("session"));
    }

    #[test]
    fn evidence_stays_readable_where_a_secret_is_a_word_of_its_own_language() {
        let masker = Masker::new(["khala", "a-session", "redacted"]);
        let row = BTreeMap::from([("khala and a-session".to_owned(), Lane::Khala)]);
        let clean = masker.clean(&row).expect("a row still");
        let expected = BTreeMap::from([("khala and [redacted]".to_owned(), Lane::Khala)]);
        assert_eq!(clean, expected);
        let spared = masker.sparing("logs/partition-khala-1/trial.log");
        assert_eq!(spared.mask("khala, a-session"), "khala, [redacted]");
    }
}
