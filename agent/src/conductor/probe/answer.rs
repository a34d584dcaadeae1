//! Which answer is good, and what is said of one that is not.

use model::command::CommandAnswer;
use scenarios::plan::{CommandAsk, HttpAsk};

/// How much of an answer is quoted.
const QUOTED: usize = 80;

/// The beginning of a text as it is quoted: on one line.
pub(super) fn begins(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(4 * QUOTED)]);
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ").replace(char::is_control, "\u{fffd}");
    match line.char_indices().nth(QUOTED) {
        _ if line.is_empty() => "it is empty".to_owned(),
        Some((end, _)) => format!("it begins with `{}…`", &line[..end]),
        None => format!("it is `{line}`"),
    }
}

fn contains(what: &str, said: &[u8], wanted: Option<&String>) -> Result<(), String> {
    let wanted = match wanted {
        Some(wanted) if !is_in(wanted.as_bytes(), said) => wanted,
        _ => return Ok(()),
    };
    let begins = begins(said);
    Err(format!("{what} does not contain {wanted:?}: {begins}"))
}

fn is_in(wanted: &[u8], said: &[u8]) -> bool {
    said.windows(wanted.len().max(1))
        .any(|window| window == wanted)
}

/// Of an HTTP endpoint.
pub(super) fn of_http(ask: &HttpAsk, status: u16, body: &[u8]) -> Result<(), String> {
    let good = match ask.status {
        Some(wanted) => status == wanted,
        None => (200..300).contains(&status),
    };
    if !good {
        let wanted = ask
            .status
            .map_or("2xx".to_owned(), |status| status.to_string());
        let begins = begins(body);
        return Err(format!(
            "status {status}, and {wanted} is wanted; of the body: {begins}"
        ));
    }
    contains("the body", body, ask.contains.as_ref())
}

/// Of a command.
pub(super) fn of_command(ask: &CommandAsk, answer: &CommandAnswer) -> Result<(), String> {
    let how = match (answer.exit, answer.signal) {
        _ if answer.timed_out => {
            "it took too long for the agent's configuration and was killed".to_owned()
        }
        (Some(0), _) => return contains("stdout", answer.stdout.as_bytes(), ask.contains.as_ref()),
        (Some(code), _) => format!("exit {code}, and 0 is wanted"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it ended, nobody knows how".to_owned(),
    };
    let (what, said) = if answer.stderr.trim().is_empty() {
        ("stdout", &answer.stdout)
    } else {
        ("stderr", &answer.stderr)
    };
    Err(format!("{how}; of {what}: {}", begins(said.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use scenarios::plan::Web;

    fn http(status: Option<u16>, contains: Option<&str>) -> HttpAsk {
        HttpAsk {
            web: Web {
                url: "http://127.0.0.1/healthz".to_owned(),
                headers: [].into(),
                ca_pem: None,
            },
            status,
            contains: contains.map(str::to_owned),
        }
    }

    #[test]
    fn status_and_body_have_both_to_be_as_wanted() {
        let ask = http(Some(200), Some("ok"));
        assert_eq!(of_http(&ask, 200, b"all ok\n"), Ok(()));
        assert_eq!(
            of_http(&ask, 503, b"ok"),
            Err("status 503, and 200 is wanted; of the body: it is `ok`".to_owned())
        );
        assert_eq!(
            of_http(&ask, 200, b"degraded\nqueue 9000"),
            Err("the body does not contain \"ok\": it is `degraded queue 9000`".to_owned())
        );
        assert!(of_http(&ask, 204, b"ok").is_err(), "200 is not any 2xx");
    }

    #[test]
    fn without_a_status_any_success_will_do_and_no_failure() {
        let ask = http(None, Some("ok"));
        assert_eq!(of_http(&ask, 204, b"ok"), Ok(()));
        let error = of_http(&ask, 500, b"not ok").unwrap_err();
        assert!(error.contains("2xx is wanted"), "{error}");
    }

    #[test]
    fn a_status_can_be_wanted_that_is_no_success() {
        assert_eq!(of_http(&http(Some(503), None), 503, b""), Ok(()));
        let error = of_http(&http(Some(503), None), 200, b"").unwrap_err();
        assert!(error.contains("it is empty"), "{error}");
    }

    #[test]
    fn of_a_long_answer_the_beginning_is_quoted_on_one_line() {
        let long = format!("<html>\n\n{}\u{7}", "é".repeat(500));
        let error = of_http(&http(Some(200), None), 502, long.as_bytes()).unwrap_err();
        assert!(error.contains("it begins with `<html> éé"), "{error}");
        assert!(
            error.chars().count() < 160 && !error.contains('\n'),
            "{error}"
        );
        let binary = of_http(&http(Some(200), None), 502, &[0, 159, 7]).unwrap_err();
        assert!(!binary.contains('\u{7}'), "{binary}");
    }

    fn ended(exit: Option<i32>, signal: Option<i32>, stdout: &str, stderr: &str) -> CommandAnswer {
        CommandAnswer {
            exit,
            signal,
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
            timed_out: false,
        }
    }

    #[test]
    fn a_command_is_good_when_it_exits_with_0_and_says_what_it_has_to() {
        let ask = |contains: Option<&str>| CommandAsk {
            run: "queue-depth".to_owned(),
            contains: contains.map(str::to_owned),
        };
        assert_eq!(
            of_command(&ask(None), &ended(Some(0), None, "", "x")),
            Ok(())
        );
        let deep = ended(Some(0), None, "depth 9000", "");
        assert_eq!(of_command(&ask(Some("depth 9")), &deep), Ok(()));
        for (answer, word) in [
            (
                ended(Some(0), None, "depth 1", ""),
                "does not contain \"depth 9\"",
            ),
            (
                ended(Some(2), None, "depth 9", "no queue"),
                "exit 2, and 0 is wanted; of stderr: it is `no queue`",
            ),
            (
                ended(Some(1), None, "depth 9", ""),
                "of stdout: it is `depth 9`",
            ),
            (ended(None, Some(11), "", ""), "signal 11"),
        ] {
            let error = of_command(&ask(Some("depth 9")), &answer).unwrap_err();
            assert!(error.contains(word), "`{word}` in {error}");
        }
        let slow = CommandAnswer {
            timed_out: true,
            ..ended(None, Some(9), "", "")
        };
        let error = of_command(&ask(None), &slow).unwrap_err();
        assert!(error.contains("too long"), "{error}");
    }
}
