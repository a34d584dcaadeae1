//! A client's story as a person reads it.

use std::fmt::{self, Write as _};

use model::moment::What;
use model::quantity::Span;

use super::{Found, Mark, Story, Why};
use crate::text;

impl fmt::Display for Why {
    /// Ends with a line break.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        for (place, story) in self.trials.iter().enumerate() {
            if place > 0 {
                out.push('\n');
            }
            let Story {
                scenario,
                lane,
                trial,
                ..
            } = story;
            let status = match story.status {
                Some(status) => status.to_string(),
                None => "its row was not written".to_owned(),
            };
            let _ = writeln!(
                out,
                "{} in {scenario} on {lane}, trial {trial}: {status}",
                self.client
            );
            told(&mut out, story);
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        f.write_str(&printable(&out))
    }
}

/// What lanes say ends up in reasons and details. Control characters among it must not reach a terminal as such.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// A text of somebody else's, on one line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn told(out: &mut String, story: &Story) {
    for found in &story.found {
        let Found {
            anomaly,
            count,
            examples,
        } = found;
        let count = match count {
            Some(count) => format!("{count} found by its shard"),
            None => "found from the trial's evidence".to_owned(),
        };
        let _ = writeln!(out, "  {anomaly}: {count}");
        for example in examples {
            let _ = writeln!(out, "    {}", line(&text::example(example)));
        }
    }
    let said = |unfinished: &String| {
        let mut examples = story.found.iter().flat_map(|found| &found.examples);
        examples.any(|example| example.detail == *unfinished)
    };
    if let Some(unfinished) = story.unfinished.as_ref().filter(|text| !said(text)) {
        let _ = writeln!(out, "  not whole in the end: {}", line(unfinished));
    }
    let Some(forgotten) = story.forgotten else {
        let _ = writeln!(
            out,
            "  its moments were not kept: its shard saw nothing wrong with it"
        );
        return;
    };
    let zero = if story.marks.is_empty() {
        "its first moment here"
    } else {
        "the fault"
    };
    let earlier = match forgotten {
        0 => String::new(),
        forgotten => format!(" ({forgotten} earlier ones are forgotten)"),
    };
    let _ = writeln!(
        out,
        "  its last {} moments{earlier}, in seconds from {zero}:",
        story.moments.len()
    );
    timeline(out, story);
}

fn timeline(out: &mut String, story: &Story) {
    let mut marks = story.marks.iter().peekable();
    for moment in &story.moments {
        while let Some(mark) = marks.next_if(|mark| mark.at <= moment.at) {
            marked(out, mark);
        }
        let what = line(&words(story, &moment.what));
        let _ = writeln!(out, "  {}  {what}", seconds(moment.relative_us));
    }
    for mark in marks {
        marked(out, mark);
    }
}

fn marked(out: &mut String, mark: &Mark) {
    let what = if mark.heal { "heal" } else { "fault" };
    let _ = writeln!(
        out,
        "  {}  ==== {what} {} (in force within {}) ====",
        seconds(mark.relative_us),
        line(&mark.fault),
        text::span(Span::from_micros(mark.width_us))
    );
}

fn seconds(micros: i64) -> String {
    format!("{:>+10.3}", micros as f64 / 1e6)
}

fn words(story: &Story, what: &What) -> String {
    let stream = |place: u16| match story.streams.get(usize::from(place)) {
        Some(name) => name.clone(),
        None => format!("stream {place}"),
    };
    let at = |instant| {
        seconds(super::relative(instant, story.zero))
            .trim()
            .to_owned()
    };
    match what {
        What::TokenAsked { ttl_s } => format!("asks for a token of {ttl_s} s"),
        What::TokenFetched { exp } => format!("has a token until {}", at(*exp)),
        What::TokenRefused { status, reason } => format!("no token: {}", refusal(*status, reason)),
        What::TokenExpired => "the token of the open connection expires".to_owned(),
        What::Dialled { connection } => format!("connects (connection {connection})"),
        What::Refused { status, reason } => format!("not connected: {}", refusal(*status, reason)),
        What::Upgraded => "upgraded".to_owned(),
        What::Joined => "joined".to_owned(),
        What::Subscribed { after } => {
            let cursors: Vec<String> = (0..)
                .zip(after)
                .map(|(place, cursor)| format!("{} after {cursor}", stream(place)))
                .collect();
            format!("subscribes: {}", cursors.join(", "))
        }
        What::Live => "live: the replay is complete".to_owned(),
        What::Rows {
            stream: place,
            framing,
            replay,
            first,
            count,
            lasted_us,
        } => {
            let how = if *replay { "replayed" } else { "live" };
            let framing = if *framing > 0 { ", second framing" } else { "" };
            let run = run(*first, *count);
            format!(
                "{how}: {} {run}{framing}{}",
                stream(*place),
                over(*lasted_us)
            )
        }
        What::Gap {
            stream: place,
            awaited,
            beyond,
        } => {
            let came = awaited.saturating_add(u64::from(*beyond));
            format!(
                "gap: {} awaited seq {awaited}, seq {came} came",
                stream(*place)
            )
        }
        What::Stale {
            stream: place,
            reason,
        } => format!("stale cursor: {}: {reason}", stream(*place)),
        What::Reset { stream: place, to } => match to {
            0 => format!("begins {} anew from nothing", stream(*place)),
            to => format!("begins {} anew from a snapshot up to {to}", stream(*place)),
        },
        What::Lost { reason } => format!("connection lost: {reason}"),
        What::Replaced => "gives the connection up for a newer token".to_owned(),
        What::Waits { until } => format!("waits until {}", at(*until)),
        What::Stopped => "stops: it will not try again".to_owned(),
        What::Found {
            anomaly,
            stream: place,
            seq,
            times,
            lasted_us,
        } => {
            let place = place.map(|place| format!(" {}", stream(place)));
            let seq = match seq {
                0 => String::new(),
                seq => format!(" seq {seq}"),
            };
            let times = match times {
                0 | 1 => String::new(),
                times => format!(", {times} times{}", over(*lasted_us)),
            };
            format!("!! {anomaly}:{}{seq}{times}", place.unwrap_or_default())
        }
    }
}

fn refusal(status: Option<u16>, reason: &str) -> String {
    match status {
        Some(status) => format!("{status}, {reason}"),
        None => reason.to_owned(),
    }
}

fn run(first: u64, count: u32) -> String {
    match count {
        0 | 1 => format!("seq {first}"),
        count => format!(
            "seqs {first} to {}",
            first.saturating_add(u64::from(count) - 1)
        ),
    }
}

fn over(lasted_us: u32) -> String {
    match lasted_us {
        0 => String::new(),
        lasted => format!(" over {}", text::span(Span::from_micros(u64::from(lasted)))),
    }
}
