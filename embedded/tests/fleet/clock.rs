//! A token service whose clock is wrong: clients whose tokens have to be renewed are turned away by the lane, whose clock is
//! right, and are whole again once the service tells the true time.

use std::time::Duration;

use host::clock;
use host::http::Method;
use model::fault::{ClockSkew, Fault, FaultOrder, FaultView};
use model::ids::Lane;
use model::quantity::{Share, Span};
use model::shard::{Episode, EpisodeFault};

use crate::{CLIENTS, Target, live, rig};

const CALL: Duration = Duration::from_secs(5);

async fn is_outlived(lane: Lane, offset: &str) {
    let mut target = Target::new(lane, None, None);
    target.base.probes = None;
    // They have to renew their tokens while the clock is wrong.
    target.base.profile.token_ttl = Span::from_secs(3);
    let mut rig = target.rig();
    rig.start().await;
    live(&mut rig).await;
    let order = FaultOrder {
        id: "f1-clock_skew".to_owned(),
        fault: Fault::ClockSkew(ClockSkew {
            offset: offset.parse().unwrap(),
        }),
        node: Some("tokens".to_owned()),
        share: Share::ALL,
        seed: 7,
        lease: Span::from_secs(60),
    };
    let control = target.tokens_control.clone();
    let injected: FaultView = control.post("/faults", &order, CALL).await.unwrap();
    rig.tell(injected.injected.asked, None).await;
    rig.until("all cut off", |_, clients| clients.live == 0)
        .await;
    let undone = control.call(Method::DELETE, "/faults/f1-clock_skew", &(), CALL);
    let undone: FaultView = undone.await.unwrap();
    let issued = undone.observation.figures["tokens_skewed"];
    assert!(undone.observation.bitten > 0, "{undone:?}");
    // Nobody asks over and over for what cannot be had.
    assert!(
        issued <= 40 * u64::from(CLIENTS),
        "{issued} tokens were asked for"
    );
    let episode = Episode {
        t0: injected.injected.asked,
        th: Some(undone.healed.unwrap().observed),
        faults: vec![EpisodeFault {
            id: order.id.clone(),
            fault: order.fault.clone(),
            share: order.share,
        }],
    };
    rig.tell_episode(&episode).await;
    let healed = clock::now();
    rig.until("all whole", |_, clients| {
        clients.affected == CLIENTS && clients.recovered == CLIENTS && clients.live == CLIENTS
    })
    .await;
    eprintln!(
        "{lane} {offset}: {issued} wrong tokens, whole {} after the heal",
        clock::now().since(healed)
    );
    let ledger = rig.stop_publishing().await;
    let (publisher, clients, read) = rig.finish(&ledger, Span::from_secs(5)).await;
    rig.end().await;
    target.end().await;
    rig::assert_clean(&ledger, &publisher, &clients, &read);
    assert!(clients.affected == CLIENTS && clients.censored.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_is_ahead_is_outlived_on_khala() {
    is_outlived(Lane::Khala, "+1h").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_is_ahead_is_outlived_on_spacetime() {
    is_outlived(Lane::Spacetime, "+1h").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_service_that_is_behind_is_outlived_on_khala() {
    is_outlived(Lane::Khala, "-1h").await;
}
