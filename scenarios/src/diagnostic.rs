//! What is wrong with a file, where, and what to do about it.

use std::error::Error;
use std::fmt;

use crate::tree::Mark;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The scenario cannot be planned, the target not be drilled.
    Error,
    /// It can, and will probably not show what it is meant to.
    Warning,
}

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// The file's name.
        name: String,
        /// Line, column and width there.
        mark: Mark,
        /// The line's text.
        text: String,
    },
    /// In a setting of the command line, such as `--set workload.clients=0`.
    Setting(String),
}

/// One mistake, or one doubt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What, with the offending value.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error.
    pub(crate) fn error(place: Place, message: String) -> Self {
        Self {
            severity: Severity::Error,
            place,
            message,
            hint: None,
        }
    }

    /// A warning.
    pub(crate) fn warning(place: Place, message: String) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, message)
        }
    }

    /// Adds a remedy.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn order(&self) -> (Severity, usize, usize) {
        match &self.place {
            Place::File { mark, .. } => (self.severity, mark.line, mark.column),
            Place::Setting(_) => (self.severity, usize::MAX, 0),
        }
    }
}

/// A terminal's width, less the gutter.
const SNIPPET_WIDTH: usize = 110;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", printable(&self.message))?;
        let gutter = match &self.place {
            Place::File { mark, .. } => " ".repeat(mark.line.to_string().len()),
            Place::Setting(_) => " ".to_owned(),
        };
        match &self.place {
            Place::Setting(setting) => write!(f, "\n{gutter}--> {}", printable(setting))?,
            Place::File { name, mark, text } => {
                write!(
                    f,
                    "\n{gutter}--> {}:{}:{}",
                    printable(name),
                    mark.line,
                    mark.column
                )?;
                if !text.trim().is_empty() {
                    let (text, column) = crop(text, mark.column);
                    let room = text.chars().count().saturating_sub(column - 1).max(1);
                    let carets = "^".repeat(mark.width.clamp(1, room));
                    let indent = " ".repeat(column - 1);
                    write!(
                        f,
                        "\n{gutter} |\n{} | {text}\n{gutter} | {indent}{carets}",
                        mark.line
                    )?;
                }
            }
        }
        match &self.hint {
            Some(hint) => write!(f, "\n{gutter} = hint: {}", printable(hint)),
            None => Ok(()),
        }
    }
}

/// Control characters in a file must not reach the terminal as such. Each is replaced by one character, so that
/// columns stay where they are.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The part of a line that is around a column, and where the column is in it.
fn crop(line: &str, column: usize) -> (String, usize) {
    let chars: Vec<char> = printable(line.trim_end()).chars().collect();
    let column = column.clamp(1, chars.len() + 1);
    let first = if chars.len() <= SNIPPET_WIDTH {
        0
    } else {
        column.saturating_sub(SNIPPET_WIDTH / 2)
    };
    let shown: String = chars.iter().skip(first).take(SNIPPET_WIDTH).collect();
    (shown, column - first)
}

/// Everything that is wrong, in the order of the file: at least one error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// `Err` when there are errors among these; the warnings otherwise.
    pub(crate) fn sort_out(mut all: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Self> {
        all.sort_by_key(Diagnostic::order);
        // The overlaid forms of a scenario show what its plain form has shown already.
        let mut seen: Vec<Diagnostic> = Vec::new();
        all.retain(|diagnostic| {
            let new = !seen.contains(diagnostic);
            if new {
                seen.push(diagnostic.clone());
            }
            new
        });
        if all
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
        {
            Err(Self(all))
        } else {
            Ok(all)
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if n == 0 { "" } else { "\n\n" })?;
        }
        Ok(())
    }
}

impl Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, column: usize, width: usize) -> Place {
        Place::File {
            name: "a.yaml".to_owned(),
            mark: Mark {
                line: 12,
                column,
                width,
            },
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_diagnostic_points_at_its_place() {
        let diagnostic = Diagnostic::error(
            place("  cleints: 5", 3, 7),
            "unknown field `cleints`".to_owned(),
        )
        .hint("did you mean `clients`?");
        let expected = "error: unknown field `cleints`\n  --> a.yaml:12:3\n   |\n12 |   cleints: 5\n   |   ^^^^^^^\n   = hint: did you mean `clients`?";
        assert_eq!(diagnostic.to_string(), expected);
    }

    #[test]
    fn a_long_line_is_cropped_around_the_column_and_control_characters_are_not_printed() {
        let line = format!("{}\u{1b}[31mX{}", "a".repeat(1_000), "b".repeat(1_000));
        let shown = Diagnostic::error(place(&line, 1_001, 1), "bad \u{7}".to_owned()).to_string();
        assert!(
            shown.lines().all(|line| line.chars().count() < 130),
            "{shown}"
        );
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{shown:?}"
        );
        let lines: Vec<&str> = shown.lines().collect();
        let caret = lines[4].chars().position(|c| c == '^').expect("a caret");
        assert_eq!(lines[3].chars().nth(caret), Some('\u{fffd}'));
    }

    #[test]
    fn a_column_beyond_the_line_is_shown_at_its_end() {
        let shown = Diagnostic::error(place("ab", 90, 9), "x".to_owned()).to_string();
        assert!(shown.ends_with("12 | ab\n   |   ^"), "{shown}");
    }
}
