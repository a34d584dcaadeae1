//! Secrets: taken from the environment, warned of where they stand in the file, and masked wherever a line is shown.

use std::collections::BTreeSet;

use model::target::{Secret, TokenSupply};

use crate::diagnostic::{Diagnostic, Place};
use crate::tree::{Node, Value};

use super::address::Mistake;

/// What is shorter is not looked for: it stands everywhere by chance.
const SHORTEST: usize = 4;

/// Replaces each `${NAME}` by that environment variable. What it holds is in no message.
pub(crate) fn expand(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Mistake> {
    let mut rest = text;
    let mut expanded = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        expanded.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            let hint = "write ${NAME}, with its closing brace".to_owned();
            return Err(("`${` is not closed".to_owned(), hint));
        };
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            let hint = "it is letters, digits and underscores, such as ${SYNC_SECRET}".to_owned();
            return Err((format!("`{name}` is no environment variable's name"), hint));
        }
        let value = variable(name).filter(|value| !value.is_empty());
        expanded.push_str(&value.ok_or_else(|| {
            let message = format!("the environment variable `{name}` is not set");
            (message, format!("export {name}=… before faultlane starts"))
        })?);
        rest = behind;
    }
    Ok(expanded + rest)
}

/// Whether a header of that name carries a credential, or the text looks like one.
pub(crate) fn in_clear(key: &str, text: &str) -> bool {
    const NAMES: [&str; 6] = [
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "api-key",
    ];
    let key = key.to_ascii_lowercase();
    !text.is_empty()
        && !text.contains("${")
        && (NAMES.iter().any(|name| key.contains(name)) || text.contains("eyJ"))
}

/// Every text of a tree that may be a secret.
pub(crate) fn in_tree(node: &Node) -> Vec<String> {
    under("", node)
}

/// Every text under a key that may be a secret.
pub(crate) fn under(key: &str, node: &Node) -> Vec<String> {
    fn walk(key: &str, node: &Node, found: &mut Vec<String>) {
        // What these keys name is public: a field of an answer, a command of the agent's configuration.
        const PUBLIC: [&str; 3] = ["tokens", "token_field", "token_skew"];
        let text = match &node.value {
            Value::Map(entries) => {
                return entries
                    .iter()
                    .for_each(|entry| walk(&entry.key, &entry.node, found));
            }
            Value::List(items) => return items.iter().for_each(|item| walk(key, item, found)),
            Value::Text(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Null => return,
        };
        if key == "url" || key == "agent" {
            let rest = text.split_once("://").map_or("", |(_, rest)| rest);
            let user = rest.rsplit_once('@').map(|(user, _)| user);
            let query = rest.split_once('?').map(|(_, query)| query);
            found.extend(
                user.into_iter()
                    .chain(query)
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned),
            );
        } else if in_clear(key, &text) && !PUBLIC.contains(&key) {
            found.push(text);
        }
    }
    let mut found = Vec::new();
    walk(key, node, &mut found);
    found
}

/// What is not to be repeated of these texts and of tokens out of files: each text, and what in it is a credential by
/// itself, such as `x` of `Bearer x`, `user:x` and `code=x&v=2`.
pub(crate) fn hidden(texts: &[String], tokens: &TokenSupply) -> Vec<Secret> {
    let mut hidden = BTreeSet::new();
    for text in texts {
        let words = text.split(|c: char| c.is_whitespace() || c.is_control());
        hidden.extend(words.max_by_key(|word| word.len()));
        hidden.insert(text.trim());
        let fields = text.split(|c: char| c.is_whitespace() || matches!(c, '&' | ';'));
        let values = fields.filter_map(|field| field.split_once(['=', ':']));
        hidden.extend(values.map(|(_, value)| value));
    }
    if let TokenSupply::Files(tokens) = tokens {
        hidden.extend(tokens.iter().map(Secret::reveal));
    }
    hidden.retain(|text| text.chars().count() >= SHORTEST);
    hidden.into_iter().map(Secret::new).collect()
}

/// Hides secrets in what is shown, character by character, so that columns stay where they are.
pub(crate) fn mask(diagnostics: &mut [Diagnostic], secrets: &[String]) {
    let hide = |text: &mut String| {
        for secret in secrets {
            // As the file may spell it: a folded or quoted text is found by its longest word at least.
            let words = secret.split(|c: char| c.is_whitespace() || c.is_control());
            let longest = words.max_by_key(|word| word.len()).unwrap_or_default();
            for part in [secret.as_str(), longest] {
                if !part.is_empty() {
                    *text = text.replace(part, &"•".repeat(part.chars().count()));
                }
            }
        }
    };
    for diagnostic in diagnostics {
        hide(&mut diagnostic.message);
        if let Some(hint) = &mut diagnostic.hint {
            hide(hint);
        }
        if let Place::File { text, .. } = &mut diagnostic.place {
            hide(text);
        }
    }
}
