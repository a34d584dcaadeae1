//! Who renews is gone, or cannot be heard, or the wall clock jumps: leases lapse all the same, and in time.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::client::Agent;
use agent::procfs;
use host::clock;
use model::fault::FaultOrder;
use model::instant::Mono;
use model::quantity::Span;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::crashes::A_SECOND;
use crate::netns::{said, skipped};
use crate::support::{order, pause, program, until};
use crate::victim::{KINDS, Victim, apart};

const LEASE: Span = Span::from_millis(600);

fn short() -> FaultOrder {
    FaultOrder {
        lease: LEASE,
        ..order("f1", pause())
    }
}

/// Waits until the lane goes on; when that was.
async fn goes_on(lane: u32) -> Mono {
    until("the lane goes on", || async move {
        procfs::is_stopped(lane) == Some(false)
    })
    .await;
    clock::now()
}

/// A conductor in a process of its own, which renews until it is killed.
struct Conductor {
    process: tokio::process::Child,
    renewals: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Conductor {
    async fn start(agent: &Agent, order: &FaultOrder) -> Self {
        let mut process = tokio::process::Command::new(program())
            .arg("conductor")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let config = serde_json::to_string(&(agent.addr(), order)).unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin.write_all(config.as_bytes()).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
        let renewals = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, renewals }
    }

    /// Waits for the next renewal; when it was asked for.
    async fn renewed(&mut self) -> Mono {
        Mono(
            self.renewals
                .next_line()
                .await
                .unwrap()
                .unwrap()
                .parse()
                .unwrap(),
        )
    }
}

#[tokio::test]
async fn the_faults_of_a_killed_conductor_end_with_their_lease() {
    let victim = Victim::start().await;
    let mut conductor = Conductor::start(&victim.agent, &short()).await;
    let began = conductor.renewed().await;
    // For longer than one lease.
    let mut last = began;
    while last.since(began) < LEASE.times(2) {
        last = conductor.renewed().await;
    }
    assert_eq!(procfs::is_stopped(victim.lane()), Some(true));
    conductor.process.kill().await.unwrap();
    let killed = clock::now();
    let healed = goes_on(victim.lane()).await;
    // The last renewal may have been on its way.
    assert!(
        healed > last + LEASE,
        "{} after the last renewal",
        healed.since(last)
    );
    assert!(
        healed < killed + LEASE + A_SECOND,
        "{} after the kill",
        healed.since(killed)
    );
    until("the view says so", || async {
        victim.agent.look("f1").await.unwrap().lapsed
    })
    .await;
}

#[test]
fn when_the_channel_is_cut_the_faults_end_with_their_lease() {
    if skipped() {
        return;
    }
    apart(|| async {
        let victim = Victim::start().await;
        let mut conductor = Conductor::start(&victim.agent, &short()).await;
        for _ in 0..4 {
            conductor.renewed().await;
        }
        let port = victim.agent.addr().port();
        said(
            "nft",
            &["add table inet cut; add chain inet cut in { type filter hook input priority 0; }"],
        );
        said(
            "nft",
            &[&format!("add rule inet cut in tcp dport {port} drop")],
        );
        let cut = clock::now();
        let healed = goes_on(victim.lane()).await;
        assert!(
            healed < cut + LEASE + A_SECOND,
            "{} after the cut",
            healed.since(cut)
        );
        assert!(
            conductor.process.try_wait().unwrap().is_none(),
            "it is there and cannot be heard"
        );
        said("nft", &["delete", "table", "inet", "cut"]);
        assert!(victim.agent.look("f1").await.unwrap().lapsed);
    })
    .join()
    .unwrap();
}

/// A library that moves the wall clock of the processes it is loaded into by the seconds in a file.
struct WallClock {
    library: PathBuf,
    offset: PathBuf,
    _folder: tempfile::TempDir,
}

impl WallClock {
    /// `None`, said out loud, where there is no C compiler.
    fn build(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("wall_clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/wall_clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .output();
        match built {
            Ok(built) => assert!(built.status.success(), "{built:?}"),
            Err(error) => {
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: {test}: the wall clock cannot be moved without a C compiler: cc: {error}"
                );
                return None;
            }
        }
        let offset = folder.path().join("offset");
        let clock = Self {
            library,
            offset,
            _folder: folder,
        };
        clock.jump(0);
        Some(clock)
    }

    fn variables(&self) -> [String; 2] {
        [
            format!("LD_PRELOAD={}", self.library.display()),
            format!("WALL_CLOCK_OFFSET={}", self.offset.display()),
        ]
    }

    /// In one step, so that nobody reads half a number.
    fn jump(&self, seconds: i64) {
        let next = self.offset.with_extension("next");
        fs::write(&next, seconds.to_string()).unwrap();
        fs::rename(next, &self.offset).unwrap();
    }
}

/// How many hours a process with these in its environment is ahead of this one, by its wall clock.
fn hours_ahead(variables: &[String]) -> i64 {
    let told = Command::new("/usr/bin/env")
        .args(variables)
        .arg(program())
        .arg("wall-clock")
        .output()
        .unwrap();
    let there: i64 = String::from_utf8(told.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let here = i64::try_from(clock::unix_micros()).unwrap();
    (there - here + 1_800_000_000).div_euclid(3_600_000_000)
}

#[tokio::test]
async fn a_wall_clock_that_jumps_by_an_hour_ends_no_lease_too_soon_and_none_too_late() {
    let test = "a_wall_clock_that_jumps_by_an_hour_ends_no_lease_too_soon_and_none_too_late";
    let Some(wall) = WallClock::build(test) else {
        return;
    };
    for hours in [1, -1] {
        for killed in [false, true] {
            wall.jump(0);
            let victim = Victim::start_with(&wall.variables(), None).await;
            let (agent, lane) = (victim.agent.clone(), victim.lane());
            let loaded = fs::read_to_string(format!("/proc/{}/maps", victim.pid())).unwrap();
            assert!(
                loaded.contains("wall_clock.so"),
                "the agent's wall clock cannot be moved"
            );
            agent.inject(&short()).await.unwrap();
            wall.jump(hours * 3_600);
            assert_eq!(hours_ahead(&wall.variables()), hours);
            agent.renew("f1", LEASE).await.unwrap();
            let renewed = clock::now();
            let healed = if killed {
                let remains = victim.killed().await;
                let kind = KINDS.iter().find(|kind| kind.name == "pause").unwrap();
                remains
                    .clean(kind, renewed + LEASE, A_SECOND)
                    .await
                    .unwrap();
                remains.unwatched(A_SECOND).await.unwrap();
                remains.entries().last().unwrap().at
            } else {
                goes_on(lane).await
            };
            let after = healed.since(renewed);
            // A little was gone when the answer was there.
            assert!(
                after > LEASE.scale(0.8) && after < LEASE.plus(A_SECOND),
                "{hours} h, killed: {killed}: {after}"
            );
        }
    }
}
