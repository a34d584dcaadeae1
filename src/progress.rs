//! How a drill is doing, on stderr: a line a lane that moves on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent::conductor::{Beat, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use model::ids::Lane;

/// Elsewhere than on a terminal a phase that drags on says so this often.
const REPEAT: Duration = Duration::from_secs(5);

/// Shows beats.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    lanes: Mutex<BTreeMap<Lane, Shown>>,
    began: Instant,
}

#[derive(Default)]
struct Shown {
    bar: Option<ProgressBar>,
    phase: String,
    said: Option<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Arc::new(Self {
            bars,
            lanes: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// What the conductor calls.
    pub(crate) fn observer(self: &Arc<Self>) -> Observer {
        let this = Arc::clone(self);
        Arc::new(move |beat| this.show(&beat))
    }

    /// A line that stays.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            // An error means that the terminal went away; there is nobody left to tell.
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the moving lines off the screen.
    pub(crate) fn done(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
        }
    }

    fn show(&self, beat: &Beat) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = lanes.entry(beat.lane).or_default();
        let line = describe(beat);
        if let Some(bars) = &self.bars {
            let bar = shown.bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                bars.add(ProgressBar::new_spinner().with_style(style))
            });
            bar.set_message(line);
            bar.tick();
            return;
        }
        let phase = format!("{} {} {}", beat.scenario, beat.trial, beat.phase);
        let due = shown.said.is_none_or(|said| said.elapsed() >= REPEAT);
        if due || shown.phase != phase {
            eprintln!("[{:6.1}s] {line}", self.began.elapsed().as_secs_f64());
            shown.phase = phase;
            shown.said = Some(Instant::now());
        }
    }
}

fn describe(beat: &Beat) -> String {
    let sample = &beat.sample;
    let fleet = format!("{}/{} connected", sample.live, sample.intended);
    let recovered = match sample.affected {
        0 => String::new(),
        affected => format!(", {}/{affected} recovered", sample.recovered),
    };
    format!(
        "{:<9} {:<18} #{} {:<10} {fleet}{recovered}",
        beat.lane, beat.scenario, beat.trial, beat.phase
    )
}
