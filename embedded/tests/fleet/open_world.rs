//! Another publisher on the fleet's streams: before the trial, beside it, and after its clean-up.

use std::sync::Arc;

use host::peer::Peer;
use lanes::khala::ingress::REMOVE_PATH;
use lanes::spacetime::REMOVE_REDUCER;
use lanes::store::{AppendError, Store};
use model::event::{Event, payload_hash};
use model::shard::CleanUp;
use model::target::{Removal, World};
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// What the other had published to each stream before the trial, and the largest replay: whoever begins from nothing is
/// told that its cursor is stale.
const HISTORY: u64 = 400;
const BUDGET: u64 = 300;

fn target_among_others(lane: Lane, defect: Option<Defect>) -> Target {
    let mut target = Target::new(lane, defect, None);
    let budgets = STREAMS.map(|stream| (stream.to_owned(), (u64::MAX, BUDGET)));
    target.base.stream_budgets.extend(budgets.clone());
    target.config.stream_budgets.extend(budgets);
    target.base.promise.world = World::Open;
    target.base.access.removal = match lane {
        Lane::Khala => Removal::Path(REMOVE_PATH.to_owned()),
        Lane::Spacetime => Removal::Reducer(REMOVE_REDUCER.to_owned()),
    };
    target
}

/// Somebody else's publisher.
struct Other {
    store: Store,
    heads: [u64; STREAMS.len()],
    published: u64,
}

impl Other {
    fn new(target: &Target) -> Self {
        Self {
            store: Store::new(
                target.base.lane,
                &target.base.access,
                Arc::new(Peer::plain(target.lane.data)),
                "publish",
            ),
            heads: [0; STREAMS.len()],
            published: 0,
        }
    }

    /// Appends an event in one of the shapes that others have; `true` once it is there.
    async fn append(&mut self, place: usize) -> bool {
        const SHAPES: [&str; 4] = ["null", "{\"run\":\"another\"}", "[7]", "\"text\""];
        let payload = SHAPES[usize::try_from(self.published).unwrap() % SHAPES.len()];
        let event = Event {
            stream: STREAMS[place].to_owned(),
            index: 0,
            key: format!("other-{place}-{}", self.published),
            payload_json: payload.to_owned(),
            payload_hash: payload_hash(payload),
        };
        match self.store.append(&event, self.heads[place] + 1).await {
            Ok(seq) => {
                self.heads[place] = seq;
                self.published += 1;
                true
            }
            Err(AppendError::Conflict(_)) => {
                self.heads[place] = self.store.head(STREAMS[place]).await.unwrap().0;
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn history(&mut self) {
        for place in 0..STREAMS.len() {
            while self.heads[place] < HISTORY {
                self.append(place).await;
            }
        }
    }

    /// Appends to all streams until it is dropped.
    fn busy(mut self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                for place in 0..STREAMS.len() {
                    while !self.append(place).await {}
                }
                tokio::time::sleep(std::time::Duration::from_millis(40)).await;
            }
        }))
    }
}

/// A trial beside another publisher: what was seen, and how the clean-up and a second one went.
async fn among_others(lane: Lane, defect: Option<Defect>) -> (Reports, [CleanUp; 2], FinalRead) {
    let mut target = target_among_others(lane, defect);
    // With the budgets that were just given to it.
    target.restart().await;
    let mut other = Other::new(&target);
    other.history().await;
    let mut rig = target.rig();
    let busy = other.busy();
    let heads = rig.start_after_heads().await;
    assert!(STREAMS.iter().all(|stream| heads[*stream] >= HISTORY));
    assert_eq!((heads[STALE], heads[RIVAL]), (0, 0), "{heads:?}");
    let began = clock::now();
    rig.until("enough delivered", |publisher, clients| {
        clients.live == CLIENTS
            && publisher.published.1 > 30 * STREAMS.len() as u64
            && clock::now().since(began) > Span::from_secs(2)
    })
    .await;
    let ledger = rig.stop_publishing().await;
    drop(busy);
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(3)).await;
    let cleaned = [rig.clean_up().await, rig.clean_up().await];
    // What was removed stays removed.
    target.restart().await;
    let after: FinalRead = rig.publisher.post("/final-read", &()).await;
    rig.end().await;
    target.end().await;
    ((ledger, publisher, clients, read), cleaned, after)
}

async fn nothing_of_theirs_is_found_and_nothing_of_its_own_left(lane: Lane) {
    let ((ledger, publisher, clients, read), cleaned, after) = among_others(lane, None).await;
    for report in [&publisher, &clients] {
        let found: Vec<_> = report.findings.iter().collect();
        assert!(found.is_empty(), "{found:?}");
    }
    assert_eq!(clients.rebootstraps, 0);
    assert!(clients.foreign_rows > 0);
    assert_eq!(read.failed, [].into());
    let mut total = 0;
    for (stream, book) in &ledger.streams {
        assert!(
            book.failed.is_empty() && book.unknown.is_empty(),
            "{book:?}"
        );
        assert_eq!(read.streams[stream].events, book.acknowledged, "{stream}");
        assert!(read.streams[stream].foreign > 0);
        for applied in clients
            .applied
            .iter()
            .filter(|applied| applied.stream == *stream)
        {
            assert_eq!(applied.indexes, book.invoked, "{stream}");
        }
        total += book.invoked.len();
    }
    let [first, second] = cleaned;
    // What was published for the probes is more.
    assert!(first.removed > total, "{first:?}");
    for (done, removed) in [(&first, first.removed), (&second, 0)] {
        // Khala replays but the newest few events of the stream of stale cursors.
        let unseen = done.unseen.clone();
        let budgeted = (lane == Lane::Khala).then(|| STALE.to_owned());
        assert_eq!(
            unseen.keys().cloned().collect::<Vec<_>>(),
            Vec::from_iter(budgeted)
        );
        assert_eq!(
            *done,
            CleanUp {
                removed,
                unseen,
                ..CleanUp::default()
            }
        );
    }
    for (stream, read) in &read.streams {
        let after = &after.streams[stream];
        assert!(after.events.is_empty(), "{after:?}");
        assert_eq!(
            (after.foreign, &after.foreign_at),
            (read.foreign, &read.foreign_at)
        );
        assert_eq!(after.head, read.head, "no seq is used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn among_others_nothing_of_theirs_is_found_and_nothing_of_its_own_left_on_khala() {
    nothing_of_theirs_is_found_and_nothing_of_its_own_left(Lane::Khala).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn among_others_nothing_of_theirs_is_found_and_nothing_of_its_own_left_on_spacetime() {
    nothing_of_theirs_is_found_and_nothing_of_its_own_left(Lane::Spacetime).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_defects_are_found_among_others_too() {
    for (defect, anomaly) in [
        (Defect::GapLivelock, Anomaly::Gap),
        (Defect::AlterContent, Anomaly::Divergence),
        (Defect::DeliverTwice, Anomaly::DuplicateDelivery),
    ] {
        let running = Lane::ALL.map(|lane| tokio::spawn(among_others(lane, Some(defect))));
        for (lane, case) in Lane::ALL.into_iter().zip(running) {
            let ((_, _, clients, _), ..) = case.await.unwrap();
            let found: Vec<_> = clients.findings.iter().collect();
            let count = clients.findings.count(anomaly);
            assert!(count > 0, "{defect} on {lane}: {found:?}");
        }
    }
}

/// An event without the mark in the place of one of the run's: results finds that it has taken it.
#[tokio::test(flavor = "multi_thread")]
async fn a_phantom_in_the_place_of_the_runs_event_is_handed_to_results() {
    for lane in Lane::ALL {
        let ((ledger, _, clients, _), ..) = among_others(lane, Some(Defect::DeliverPhantom)).await;
        let taken = ledger.streams.iter().flat_map(|(stream, book)| {
            let foreign = &clients.foreign[stream];
            let places = book.acknowledged.iter();
            places
                .flat_map(|(seq, _, length)| *seq..seq + length)
                .filter(|seq| foreign.contains(*seq))
        });
        assert!(taken.count() > 0, "on {lane}: {:?}", clients.foreign);
    }
}
