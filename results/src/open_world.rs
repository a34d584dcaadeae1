//! A world in which others publish too: what of theirs was met, what could not be judged because of it, and what became
//! of the run's own events afterwards.

use model::shard::{CleanUp, Cursors};
use model::trial::Trial;
use serde::{Deserialize, Serialize};

/// What a row says of the others. Nothing here is held against the target.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OpenWorld {
    /// The heads before the trial: what lies at or below them was neither read nor judged.
    pub cursors: Cursors,
    /// Rows above them that others published, by the final read; `None` where there was none.
    pub foreign_held: Option<u64>,
    /// Rows of others that clients received, each client's own and repetitions included.
    pub foreign_received: u64,
    /// Clients that began anew from a snapshot that nobody could verify: it holds others' events, or history. What lay at
    /// or below it is not judged for them.
    pub unverified_snapshots: u64,
    /// What became of the run's own events; `None` where the trial ended before it published any.
    pub clean_up: Option<CleanUp>,
}

impl OpenWorld {
    /// What a trial met.
    #[must_use]
    pub fn of(trial: &Trial) -> Self {
        let sum = |of: fn(&model::shard::ShardReport) -> u64| trial.shards.iter().map(of).sum();
        Self {
            cursors: trial.cursors.clone(),
            foreign_held: trial
                .final_read
                .as_ref()
                .map(|read| read.streams.values().map(|stream| stream.foreign).sum()),
            foreign_received: sum(|shard| shard.foreign_rows),
            unverified_snapshots: 0,
            clean_up: trial.clean_up.clone(),
        }
    }

    /// What the run left behind in spite of its clean-up: this fails the trial.
    pub(crate) fn left_behind(&self, run: &str) -> Vec<String> {
        let Some(done) = self.clean_up.as_ref().filter(|done| !done.declined) else {
            return Vec::new();
        };
        let mut behind = Vec::new();
        if let Some((stream, rows)) = done.left.first_key_value() {
            let all: u64 = done.left.values().sum();
            let place = match done.left.len() {
                1 => stream.clone(),
                streams => format!("{streams} streams, such as {rows} in {stream}"),
            };
            let why = done.failed.get(stream);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            behind.push(format!("{all} rows of this run in {place}{why}"));
        }
        let unread = done.failed.iter();
        let mut unread = unread.filter(|(stream, _)| !done.left.contains_key(*stream));
        if let Some((stream, why)) = unread.next() {
            let place = match unread.count() {
                0 => stream.clone(),
                others => format!("{} streams, such as {stream}", others + 1),
            };
            behind.push(format!("what this run published to {place}: {why}"));
        }
        if let Some(last) = behind.last_mut() {
            last.push_str(&afterwards(run));
        }
        behind
    }

    /// Why the harness could not even ask for the clean-up: nobody knows what is left, and the target is not to blame.
    pub(crate) fn not_cleaned(&self, run: &str) -> Option<String> {
        let why = self.clean_up.as_ref()?.error.as_ref()?;
        Some(format!(
            "the clean-up could not be asked for: {why}{}",
            afterwards(run)
        ))
    }

    /// What somebody who reads the row has to know, a sentence each.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let held = match self.foreign_held {
            Some(rows) => format!("the lane held {rows} rows of theirs at the end"),
            None => "the lane was not read at the end".to_owned(),
        };
        remarks.push(format!(
            "others publish to the same streams: {held}, clients received {}. Only this run's events are judged; of \
             theirs only the order is",
            self.foreign_received
        ));
        if self.unverified_snapshots > 0 {
            remarks.push(format!(
                "{} snapshots held what this run cannot know: what lay below them is not judged for the clients that \
                 took them",
                self.unverified_snapshots
            ));
        }
        if let Some(done) = &self.clean_up {
            remarks.push(cleaned(done));
        }
        remarks
    }
}

fn afterwards(run: &str) -> String {
    format!("; `faultlane clean-up FILE --run {run}` removes what is left")
}

fn cleaned(done: &CleanUp) -> String {
    let left: u64 = done.left.values().sum();
    let unseen: u64 = done.unseen.values().sum();
    let beyond = "which lie beyond what it replays, where nobody can look";
    if done.declined {
        let more = match unseen {
            0 => String::new(),
            unseen => format!(", and up to {unseen} more {beyond}"),
        };
        let unread = match done.failed.len() {
            0 => String::new(),
            streams => format!(", and whatever is in {streams} streams that could not be read"),
        };
        return format!(
            "{left} rows of this run stay in {} streams{more}{unread}: the target file says `clean_up: none`",
            done.left.len()
        );
    }
    let more = match unseen {
        0 => String::new(),
        unseen => format!("; the lane has acknowledged the removal of {unseen} more, {beyond}"),
    };
    let whole = left == 0 && done.failed.is_empty() && done.error.is_none();
    let outcome = if whole {
        "and none was found afterwards"
    } else {
        "and not all: see the verdict"
    };
    format!(
        "{} rows of this run were removed, {outcome}{more}",
        done.removed
    )
}
