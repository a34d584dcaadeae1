//! Faults of the machine: cores, memory and room on a disk are taken up, bounded, and given back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::journal::{Entry, Event, Undo};
use agent::memory::Memory;
use agent::procfs;
use host::clock;
use model::fault::{Amount, Cores, CpuBurn, DiskFill, Fault, FaultView, MemoryFill};
use model::quantity::{ByteSize, Share, Span};
use model::role::Role;
use rustix::process::Signal;

use crate::support::{Node, lane, order, refusal, send, until, until_gone, workers};

const MIB: u64 = 1 << 20;

pub(crate) fn cpu_burn() -> Fault {
    Fault::CpuBurn(CpuBurn {
        cores: Cores::Count(1),
        load: Share::ratio(0.2),
        pin: false,
    })
}

pub(crate) fn memory_fill(bytes: u64) -> Fault {
    Fault::MemoryFill(MemoryFill {
        size: Amount::Bytes(ByteSize::new(bytes)),
        reserve: ByteSize::new(0),
    })
}

pub(crate) fn disk_fill(bytes: u64) -> Fault {
    Fault::DiskFill(DiskFill {
        size: Amount::Bytes(ByteSize::new(bytes)),
        reserve: ByteSize::new(0),
        folder: None,
    })
}

/// Where the lane's data are, which it has in an agent's folder.
fn data(node: &Node) -> PathBuf {
    node.state_dir().join("data/lane")
}

async fn with_data() -> Node {
    let node = Node::start().await;
    start_lane(&node).await;
    node
}

async fn start_lane(node: &Node) {
    let Role::Lane(mut config) = lane("") else {
        unreachable!("it is a lane")
    };
    config.data_dir = data(node);
    fs::create_dir_all(&config.data_dir).unwrap();
    node.agent
        .start_child("lane", &Role::Lane(config))
        .await
        .unwrap();
}

fn worker(view: &FaultView) -> u32 {
    u32::try_from(view.observation.figures["worker_pid"]).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The intent of the only fault.
fn on_record(node: &Node) -> Undo {
    let journal = node.state_dir().join("journal.jsonl");
    let entries: Vec<Entry> = host::jsonl::read(&journal).unwrap().values;
    let undo = entries.into_iter().find_map(|entry| match entry.event {
        Event::Intent { undo, .. } => Some(undo),
        _ => None,
    });
    undo.unwrap()
}

#[tokio::test]
async fn a_burn_computes_for_its_share_of_the_time_and_ends_with_its_undo() {
    let node = Node::start().await;
    node.agent.mark_residue().await.unwrap();
    let view = node.agent.inject(&order("f1", cpu_burn())).await.unwrap();
    let began = clock::now();
    assert_eq!(view.observation.bitten, 1, "{view:?}");
    assert_eq!(view.observation.figures["workers"], 1);
    let pid = worker(&view);
    let started = procfs::stat(pid).unwrap().started;
    assert_eq!(on_record(&node), Undo::EndWorker { pid, started });
    let burnt = |view: &FaultView| view.observation.figures["cpu_ms"];
    until("it goes on", || async {
        burnt(&node.agent.look("f1").await.unwrap()) >= burnt(&view) + 60
    })
    .await;
    // One worker at 20 %: 60 ms took at least 300, but for the look before and the period that had begun.
    let took = clock::now().since(began);
    assert!(took > Span::from_millis(200), "{took}");
    let owned = node.agent.residue().await.unwrap().owned;
    for named in ["`f1`", &format!("worker process {pid}")] {
        assert!(owned.iter().any(|left| left.contains(named)), "{owned:?}");
    }

    let healed = node.agent.undo("f1").await.unwrap();
    assert_eq!(procfs::stat(pid), None, "not even a zombie");
    assert!(healed.healed.is_some() && burnt(&healed) > burnt(&view));
    assert_eq!(node.agent.undo("f1").await.unwrap(), healed);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn a_burn_of_more_cores_than_there_are_takes_those_and_says_so() {
    let node = Node::start().await;
    let fault = Fault::CpuBurn(CpuBurn {
        cores: Cores::Count(4_000),
        load: Share::ratio(0.01),
        pin: true,
    });
    let view = node.agent.inject(&order("f1", fault)).await.unwrap();
    let cores = u64::from(node.agent.preflight().await.unwrap().cores);
    let figures = &view.observation.figures;
    assert_eq!((figures["cores_asked"], figures["workers"]), (4_000, cores));
    // Each stays where it is put, and no two on one core.
    let tasks = fs::read_dir(format!("/proc/{}/task", worker(&view))).unwrap();
    let mut places: Vec<String> = tasks
        .flatten()
        .filter_map(|task| {
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
            field("Name:\tburn-")?;
            field("Cpus_allowed_list:\t").map(str::to_owned)
        })
        .collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len() as u64, cores, "{places:?}");
    node.agent.undo("f1").await.unwrap();
}

#[tokio::test]
async fn memory_is_taken_up_page_by_page_and_the_kernel_takes_the_worker_first() {
    let node = Node::start().await;
    let available = Memory::look().unwrap().available;
    let asked = 48 * MIB;
    let fault = memory_fill(asked);
    let view = node.agent.inject(&order("f1", fault)).await.unwrap();
    let pid = worker(&view);
    let figures = &view.observation.figures;
    assert_eq!(view.observation.bitten, 1);
    assert_eq!(
        (figures["bytes_asked"], figures["bytes_held"]),
        (asked, asked)
    );
    assert_eq!(figures["stopped_short"], 0);
    assert!(figures["rss_bytes"] >= asked && figures["rss_bytes"] < asked + 32 * MIB);
    assert!(procfs::resident(pid).unwrap() >= asked);
    assert!(figures["bytes_available_before"] <= available + 1024 * MIB);
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "1000");
    node.agent.undo("f1").await.unwrap();
    assert_eq!(procfs::stat(pid), None);
}

#[tokio::test]
async fn memory_that_has_to_stay_is_left_alone() {
    let node = Node::start().await;
    let fill = |reserve| {
        Fault::MemoryFill(MemoryFill {
            size: Amount::Bytes(ByteSize::new(160 * MIB)),
            reserve: ByteSize::new(reserve),
        })
    };
    let all = refusal(node.agent.inject(&order("f1", fill(1 << 50))).await);
    assert!(all.0 == 422 && all.1.contains("have to stay"), "{all:?}");

    // What others do meanwhile moves the border: far enough from both ends of what is asked.
    let available = Memory::look().unwrap().available;
    let fault = fill(available - 80 * MIB);
    match node.agent.inject(&order("f2", fault)).await {
        Ok(view) => {
            let figures = &view.observation.figures;
            assert!(figures["bytes_held"] <= 160 * MIB);
            let short = figures["bytes_held"] < 160 * MIB;
            assert_eq!(figures["stopped_short"], u64::from(short), "{figures:?}");
            assert_eq!(figures["bytes_reserved"], available - 80 * MIB);
            node.agent.undo("f2").await.unwrap();
        }
        // Others took the 80 MiB first.
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains("not seen") || text.contains("have to stay"),
                "{text}"
            );
        }
    }
    assert!(workers(node.folder()).is_empty());
}

#[tokio::test]
async fn a_worker_whose_agent_stands_still_ends_by_itself_and_a_renewed_one_later() {
    let node = Node::start().await;
    let mut order = order("f1", memory_fill(8 * MIB));
    order.lease = Span::from_millis(400);
    let began = clock::now();
    let pid = worker(&node.agent.inject(&order).await.unwrap());
    node.agent
        .renew("f1", Span::from_millis(900))
        .await
        .unwrap();
    send(node.pid(), Signal::STOP);
    until_gone(pid).await;
    let lived = clock::now().since(began);
    send(node.pid(), Signal::CONT);
    assert!(
        lived >= Span::from_millis(900) && lived < Span::from_secs(3),
        "{lived}"
    );
    until("the view says so", || async {
        !node.agent.look("f1").await.unwrap().active
    })
    .await;
    assert!(node.agent.look("f1").await.unwrap().lapsed);
}

#[tokio::test]
async fn a_worker_ends_with_its_agent_and_not_with_its_lease() {
    let node = Node::start().await;
    let view = node.agent.inject(&order("f1", cpu_burn())).await.unwrap();
    let pid = worker(&view);
    let began = clock::now();
    send(node.pid(), Signal::KILL);
    until_gone(pid).await;
    assert!(clock::now().since(began) < Span::from_secs(5));
}

#[tokio::test]
async fn a_worker_that_somebody_kills_is_told_of_and_its_undo_is_none_the_worse() {
    let node = Node::start().await;
    let view = node.agent.inject(&order("f1", cpu_burn())).await.unwrap();
    send(worker(&view), Signal::KILL);
    until("it is told", || async {
        let seen = node.agent.look("f1").await.unwrap().observation;
        seen.figures["worker_ended"] == 1
    })
    .await;
    assert!(node.agent.undo("f1").await.unwrap().healed.is_some());
    assert!(workers(node.folder()).is_empty());
}

#[tokio::test]
async fn a_file_takes_up_room_beside_the_nodes_data_and_is_gone_with_its_undo() {
    let node = with_data().await;
    node.agent.mark_residue().await.unwrap();
    let fault = disk_fill(20 * MIB + 5);
    let view = node.agent.inject(&order("f1", fault)).await.unwrap();
    let figures = &view.observation.figures;
    assert_eq!(view.observation.bitten, 1);
    assert_eq!(figures["bytes_held"], 20 * MIB + 5, "{figures:?}");
    assert_eq!((figures["stopped_short"], figures["file_missing"]), (0, 0));
    assert!(figures["bytes_reserved"] >= 64 * MIB);
    let there = names(&data(&node));
    assert!(
        there.len() == 1 && there[0].contains("fill-f1"),
        "{there:?}"
    );
    let file = data(&node).join(&there[0]);
    assert_eq!(on_record(&node), Undo::RemoveFile { file: file.clone() });
    let owned = node.agent.residue().await.unwrap().owned;
    assert!(
        owned.iter().any(|left| left.contains(&there[0])),
        "{owned:?}"
    );

    node.agent.undo("f1").await.unwrap();
    assert_eq!(names(&data(&node)), [""; 0]);
    assert_eq!(node.agent.residue().await.unwrap().owned, [""; 0]);
}

#[tokio::test]
async fn a_folder_that_no_policy_names_is_refused() {
    let node = with_data().await;
    let fault = |folder: Option<&str>| {
        Fault::DiskFill(DiskFill {
            size: Amount::Bytes(ByteSize::new(MIB)),
            reserve: ByteSize::new(0),
            folder: folder.map(PathBuf::from),
        })
    };
    let named = refusal(node.agent.inject(&order("f1", fault(Some("/tmp")))).await);
    assert!(
        named.0 == 403 && named.1.contains("disk_folders"),
        "{named:?}"
    );
    let mut of_nobody = order("f2", fault(None));
    of_nobody.node = Some("db".to_owned());
    let nobody = refusal(node.agent.inject(&of_nobody).await);
    assert!(
        nobody.0 == 404 && nobody.1.contains("`folder`"),
        "{nobody:?}"
    );
}

/// A file system of 100 MiB, of which 64 stay whatever is asked.
#[tokio::test]
async fn a_small_disk_keeps_its_reserve() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can mount a small file system");
        return;
    }
    let script = r#"mkdir -p "$0" && mount -t tmpfs -o size=100m small "$0" && exec "$@""#;
    let node = Node::with_small_disk(script, "agent/data/lane").await;
    start_lane(&node).await;
    let fault = |id: &str, size: &str, reserve: u64| {
        let fault = Fault::DiskFill(DiskFill {
            size: size.parse().unwrap(),
            reserve: ByteSize::new(reserve),
            folder: None,
        });
        order(id, fault)
    };
    let view = node.agent.inject(&fault("f1", "90%", 0)).await.unwrap();
    let figures = view.observation.figures;
    assert_eq!(figures["bytes_free_before"], 100 * MIB);
    assert_eq!(
        (figures["bytes_asked"], figures["bytes_held"]),
        (90 * MIB, 36 * MIB)
    );
    assert_eq!(figures["bytes_free"], 64 * MIB);
    assert_eq!(figures["stopped_short"], 1);
    let full = refusal(node.agent.inject(&fault("f2", "1MiB", 0)).await);
    assert!(full.0 == 422 && full.1.contains("have to stay"), "{full:?}");
    node.agent.undo("f1").await.unwrap();

    let view = node.agent.inject(&fault("f3", "20MiB", 90 * MIB)).await;
    let figures = view.unwrap().observation.figures;
    assert_eq!(
        (figures["bytes_held"], figures["bytes_free"]),
        (10 * MIB, 90 * MIB)
    );
    let healed = node.agent.undo("f3").await.unwrap();
    assert!(healed.healed.is_some());
    let view = node.agent.inject(&fault("f4", "1MiB", 0)).await.unwrap();
    assert_eq!(view.observation.figures["bytes_free_before"], 100 * MIB);
    node.agent.undo("f4").await.unwrap();
    // The undo did not wait for anybody's patience.
    tokio::time::timeout(Duration::from_secs(5), node.end())
        .await
        .unwrap();
}
