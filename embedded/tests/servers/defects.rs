//! Each planted defect does what it says, on both lanes where it bites on both.

use std::time::Duration;

use futures_util::SinkExt;
use lanes::khala::message::{Reply, ServerMessage};
use lanes::spacetime::message::{ServerMessage as SpacetimeMessage, UpdateStatus};
use lanes::spacetime::rows::{Row, SyncEvent};
use lanes::token::{SCOPE_CHECKPOINT, TokenRequest};
use model::defect::Defect;
use model::event::payload_hash;
use model::ids::Lane;
use tokio_websockets::{CloseCode, Message};

use crate::support::{
    RIVAL, STREAM, Spacetime, Target, error_of, events_after, khala_path, subscriber,
};

async fn events(client: &mut Spacetime) -> Vec<SyncEvent> {
    let rows = match client.next().await {
        SpacetimeMessage::SubscribeMultiApplied(applied) => applied.update.inserted().unwrap(),
        SpacetimeMessage::TransactionUpdate(update) => match update.status {
            UpdateStatus::Committed(changed) => changed.inserted().unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    rows.into_iter()
        .filter_map(|row| match row {
            Row::Event(event) => Some(event),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn lose_acknowledged_answers_before_the_disk() {
    for lane in Lane::ALL {
        let target = Target::defective(lane, Defect::LoseAcknowledged);
        target.publish(STREAM, 1, 5).await;
        let log = std::fs::read_to_string(target.lane.data_dir.join("log.jsonl")).unwrap();
        assert!(log.lines().count() < 5, "{lane}");
    }
}

#[tokio::test]
async fn forget_log_has_nothing_after_a_restart_and_says_that_this_is_all() {
    let mut target = Target::defective(Lane::Khala, Defect::ForgetLog);
    target.publish(STREAM, 1, 5).await;
    target.stop_lane().await;
    target.start_lane();
    let mut client = target.khala(&target.token().await).await;
    assert_eq!(client.resume(STREAM, 5).await, [0_u64; 0]);
    target.publish(STREAM, 1, 1).await;
    assert_eq!(client.next_seq().await, 1, "a seq is used again");
}

#[tokio::test]
async fn skip_seq_withholds_one_seq_live_and_on_replay() {
    let target = Target::defective(Lane::Khala, Defect::SkipSeq);
    let token = target.token().await;
    let mut live = target.khala(&token).await;
    live.resume(STREAM, 0).await;
    target.publish(STREAM, 1, 19).await;
    let mut seen = Vec::new();
    for _ in 0..18 {
        seen.push(live.next_seq().await);
    }
    let expected: Vec<u64> = (1..=19).filter(|seq| *seq != 17).collect();
    assert_eq!(seen, expected);
    assert_eq!(target.khala(&token).await.resume(STREAM, 0).await, expected);

    let target = Target::defective(Lane::Spacetime, Defect::SkipSeq);
    let mut live = target.spacetime(&target.token().await).await;
    live.subscribe(1, &[events_after(STREAM, 0)]).await;
    events(&mut live).await;
    target.publish(STREAM, 1, 19).await;
    for seq in &expected {
        assert_eq!(events(&mut live).await[0].seq, *seq);
    }
    live.subscribe(2, &[events_after(STREAM, 14)]).await;
    assert_eq!(events(&mut live).await.len(), 4);
}

#[tokio::test]
async fn alter_content_differs_for_a_quarter_of_the_clients_with_a_hash_that_fits() {
    let target = Target::defective(Lane::Spacetime, Defect::AlterContent);
    let token = target.token().await;
    let mut contents = Vec::new();
    for client in ["c0002", "c0003"] {
        let mut connection = target.spacetime_as(&token, client).await;
        connection.subscribe(1, &[events_after(STREAM, 0)]).await;
        events(&mut connection).await;
        contents.push((connection, Vec::new()));
    }
    target.publish(STREAM, 1, 16).await;
    for (connection, seen) in &mut contents {
        for _ in 1..=16 {
            seen.extend(events(connection).await);
        }
        assert!(
            seen.iter()
                .all(|event| payload_hash(&event.payload_json) == event.payload_hash)
        );
    }
    let differ: Vec<u64> = contents[0]
        .1
        .iter()
        .zip(&contents[1].1)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.seq)
        .collect();
    assert_eq!(differ, [16]);

    let target = Target::defective(Lane::Khala, Defect::AlterContent);
    target.publish(STREAM, 1, 16).await;
    let token = target.token().await;
    let path = khala_path(&token);
    target
        .socket(&path, &[(model::ids::CLIENT_HEADER, "c0003")])
        .await
        .unwrap();
    assert_eq!(
        target.khala(&token).await.resume(STREAM, 15).await,
        [16],
        "unaltered without an id"
    );
}

#[tokio::test]
async fn gap_livelock_drops_one_live_delivery_that_a_resume_brings() {
    let target = Target::defective(Lane::Khala, Defect::GapLivelock);
    let token = target.token().await;
    let mut client = target.khala(&token).await;
    client.resume(STREAM, 0).await;
    target.publish(STREAM, 1, 13).await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(client.next_seq().await);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13]);
    assert_eq!(
        target.khala(&token).await.resume(STREAM, 10).await,
        [11, 12, 13]
    );
}

#[tokio::test]
async fn deliver_after_expiry_serves_on() {
    for lane in Lane::ALL {
        let target = Target::defective(lane, Defect::DeliverAfterExpiry);
        let grant = target.token_for(1).await;
        let left =
            (grant.expires_at * 1_000_000 + 50_000).saturating_sub(host::clock::unix_micros());
        match lane {
            Lane::Khala => {
                let mut client = target.khala(&grant.token).await;
                client.resume(STREAM, 0).await;
                tokio::time::sleep(Duration::from_micros(left)).await;
                target.publish(STREAM, 1, 1).await;
                assert_eq!(client.next_seq().await, 1);
            }
            Lane::Spacetime => {
                let mut client = target.spacetime(&grant.token).await;
                client.subscribe(1, &[events_after(STREAM, 0)]).await;
                events(&mut client).await;
                tokio::time::sleep(Duration::from_micros(left)).await;
                target.publish(STREAM, 1, 1).await;
                assert_eq!(events(&mut client).await.len(), 1);
            }
        }
    }
}

#[tokio::test]
async fn accept_wrong_scope_opens_everything() {
    for lane in Lane::ALL {
        let target = Target::defective(lane, Defect::AcceptWrongScope);
        target.publish(RIVAL, 1, 2).await;
        let narrow = TokenRequest {
            scopes: vec![SCOPE_CHECKPOINT.to_owned()],
            ..subscriber()
        };
        let narrow = target.grant(&narrow).await.token;
        let foreign = TokenRequest {
            streams: vec![RIVAL.to_owned()],
            ..TokenRequest::default()
        };
        target.grant(&foreign).await;
        match lane {
            Lane::Khala => assert_eq!(target.khala(&narrow).await.resume(RIVAL, 0).await, [1, 2]),
            Lane::Spacetime => {
                let mut client = target.spacetime(&narrow).await;
                client.subscribe(1, &[events_after(RIVAL, 0)]).await;
                assert_eq!(events(&mut client).await.len(), 2);
            }
        }
    }
}

#[tokio::test]
async fn ignore_stale_cursor_answers_that_the_replay_is_complete() {
    let target = Target::defective(Lane::Khala, Defect::IgnoreStaleCursor);
    target.publish(STREAM, 1, 3).await;
    let mut client = target.khala(&target.token().await).await;
    let (before, reply) = client.subscribe(STREAM, 99).await;
    assert!(matches!(reply, Reply::Ok(_)));
    assert!(
        matches!(&before[0], ServerMessage::UpdateBatch(batch) if batch.replay_complete && batch.updates.is_empty())
    );
}

#[tokio::test]
async fn expired_called_invalid_names_another_reason() {
    for lane in Lane::ALL {
        let target = Target::defective(lane, Defect::ExpiredCalledInvalid);
        let grant = target.token_for(1).await;
        let left = (grant.expires_at * 1_000_000).saturating_sub(host::clock::unix_micros());
        tokio::time::sleep(Duration::from_micros(left)).await;
        let path = match lane {
            Lane::Khala => khala_path(&grant.token),
            Lane::Spacetime => format!("/v1/database/sync/subscribe?token={}", grant.token),
        };
        let Err(refused) = target
            .socket(&path, &[("sec-websocket-protocol", "v1.json.spacetimedb")])
            .await
        else {
            panic!("accepted");
        };
        assert_eq!(
            (refused.status.as_u16(), error_of(&refused).as_str()),
            (401, "invalid_signature")
        );
    }
}

#[tokio::test]
async fn serve_after_close_delivers_to_a_connection_that_its_client_has_closed() {
    for (defect, served) in [(Some(Defect::ServeAfterClose), true), (None, false)] {
        let target = defect.map_or_else(
            || Target::start(Lane::Khala),
            |defect| Target::defective(Lane::Khala, defect),
        );
        let mut client = target.khala(&target.token().await).await;
        client.resume(STREAM, 0).await;
        target.publish(STREAM, 1, 1).await;
        assert_eq!(client.next_seq().await, 1);
        let close = Message::close(Some(CloseCode::NORMAL_CLOSURE), "");
        client.socket.send(close).await.unwrap();
        if served {
            target.publish(STREAM, 2, 2).await;
            assert_eq!(client.next_seq().await, 2);
        } else {
            assert!(client.next_or_close().await.is_err(), "the lane closes too");
        }
    }
}

#[tokio::test]
async fn deliver_twice_repeats_every_fourth_live_update() {
    let target = Target::defective(Lane::Khala, Defect::DeliverTwice);
    let mut client = target.khala(&target.token().await).await;
    client.resume(STREAM, 0).await;
    target.publish(STREAM, 1, 5).await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        seen.push(client.next_seq().await);
    }
    assert_eq!(seen, [1, 2, 3, 4, 4, 5]);

    let target = Target::defective(Lane::Spacetime, Defect::DeliverTwice);
    let mut client = target.spacetime(&target.token().await).await;
    client.subscribe(1, &[events_after(STREAM, 0)]).await;
    events(&mut client).await;
    target.publish(STREAM, 1, 4).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.extend(events(&mut client).await.iter().map(|event| event.seq));
    }
    assert_eq!(seen, [1, 2, 3, 4, 4]);
}

#[tokio::test]
async fn swap_batches_sends_a_replay_after_the_live_update_that_follows_it() {
    let target = Target::defective(Lane::Spacetime, Defect::SwapBatches);
    target.publish(STREAM, 1, 2).await;
    let mut client = target.spacetime_as(&target.token().await, "c0001").await;
    client.subscribe(1, &[events_after(STREAM, 0)]).await;
    target.publish(STREAM, 3, 3).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let batch = events(&mut client).await;
        seen.push(batch.iter().map(|event| event.seq).collect::<Vec<_>>());
    }
    assert_eq!(seen, [vec![3], vec![1, 2]]);
}

#[tokio::test]
async fn over_replay_begins_below_the_cursor() {
    let target = Target::defective(Lane::Khala, Defect::OverReplay);
    target.publish(STREAM, 1, 6).await;
    let mut client = target.khala(&target.token().await).await;
    assert_eq!(client.resume(STREAM, 5).await, [3, 4, 5, 6]);

    let target = Target::defective(Lane::Spacetime, Defect::OverReplay);
    target.publish(STREAM, 1, 6).await;
    let mut client = target.spacetime(&target.token().await).await;
    client.subscribe(1, &[events_after(STREAM, 5)]).await;
    let seqs: Vec<_> = events(&mut client)
        .await
        .iter()
        .map(|event| event.seq)
        .collect();
    assert_eq!(seqs, [3, 4, 5, 6]);
}

#[tokio::test]
async fn deliver_phantom_puts_what_nobody_published_in_an_events_place() {
    let target = Target::defective(Lane::Spacetime, Defect::DeliverPhantom);
    target.publish(STREAM, 1, 16).await;
    for (client, phantom) in [("c0002", false), ("c0003", true)] {
        let mut connection = target.spacetime_as(&target.token().await, client).await;
        connection.subscribe(1, &[events_after(STREAM, 15)]).await;
        let seen = events(&mut connection).await;
        assert_eq!((seen.len(), seen[0].seq), (1, 16));
        assert_eq!(payload_hash(&seen[0].payload_json), seen[0].payload_hash);
        assert_eq!(seen[0].idempotency_key.starts_with("nobody:"), phantom);
    }
}
