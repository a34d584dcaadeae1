//! The khala lane.

use std::time::Duration;

use futures_util::SinkExt;
use host::http::Method;
use lanes::khala::error::{ErrorBody, ErrorCode, StaleReason};
use lanes::khala::ingress::Head;
use lanes::khala::message::{
    FrameKind, Reply, Request, ResumeAfter, ServerMessage, Subscribe, Subscribed, Unsubscribe,
    UpdateBatch, Watermark,
};
use lanes::token::{SCOPE_CHECKPOINT, TokenRequest};
use model::ids::Lane;
use model::quantity::{Rate, Span};
use model::snapshot::Snapshot;
use tokio_websockets::{CloseCode, Message};

use crate::support::{
    OTHER, RIVAL, SECRET, STREAM, Target, appended, batch_seqs, error_of, event, json, khala_path,
    subscriber,
};

fn refusal(reply: &Reply) -> ErrorBody {
    *reply.response::<serde_json::Value>().unwrap_err()
}

#[tokio::test]
async fn a_resume_replays_in_batches_before_the_reply_in_both_framings() {
    let target = Target::start(Lane::Khala);
    target.publish(STREAM, 1, 11).await;
    let mut client = target.khala(&target.token().await).await;
    let (before, reply) = client.subscribe(STREAM, 2).await;
    let subscribed: Subscribed = reply.response().unwrap();
    assert_eq!(subscribed.current_watermarks[0].watermark, 11);
    assert_eq!(batch_seqs(&before), [3, 4, 5, 6, 7, 8, 9, 10, 11]);

    let (mut sizes, mut complete) = (Vec::new(), Vec::new());
    for pair in before.chunks(2) {
        let [
            ServerMessage::UpdateBatch(batch),
            ServerMessage::Frame(frame),
        ] = pair
        else {
            // The last is the frame of the reply.
            assert!(
                matches!(pair, [ServerMessage::Frame(frame)] if frame.kind == FrameKind::Subscribed)
            );
            continue;
        };
        assert_eq!(frame.payload::<UpdateBatch>().unwrap(), *batch);
        assert_eq!(frame.seq, batch.updates.last().unwrap().watermark);
        assert_eq!(
            batch.updates[0].payload_hash,
            event(STREAM, batch.updates[0].watermark).payload_hash
        );
        sizes.push(batch.updates.len());
        complete.push(batch.replay_complete);
    }
    assert_eq!((sizes, complete), (vec![4, 4, 1], vec![false, false, true]));

    target.publish(STREAM, 12, 13).await;
    assert_eq!(client.next_seq().await, 12);
    assert_eq!(client.next_seq().await, 13);
    assert_eq!(target.status().await.heads[STREAM], 13);
}

#[tokio::test]
async fn a_list_of_watermarks_is_a_cursor_too_and_nothing_missed_is_an_empty_batch() {
    let target = Target::start(Lane::Khala);
    target.publish(STREAM, 1, 3).await;
    let mut client = target.khala(&target.token().await).await;
    let topic = "run:1:events".to_owned();
    let (before, reply) = client
        .ask(&Request::Subscribe(Subscribe {
            topics: vec![topic.clone()],
            resume_after: ResumeAfter::List(vec![Watermark {
                topic,
                watermark: 3,
            }]),
            replay_batch_size: 200,
        }))
        .await;
    reply.response::<Subscribed>().unwrap();
    assert!(matches!(&before[0], ServerMessage::UpdateBatch(batch)
        if batch.updates.is_empty() && batch.replay_complete));
}

#[tokio::test]
async fn a_stale_cursor_is_answered_in_three_forms_with_a_snapshot() {
    let target = Target::start(Lane::Khala);
    // OTHER keeps 10 events and replays at most 5.
    target.publish(OTHER, 1, 20).await;
    let mut whole = Snapshot::default();
    for n in 1..=20 {
        whole.push(&event(OTHER, n).payload_hash);
    }
    let mut client = target.khala(&target.token().await).await;
    for (cursor, reason) in [
        (21, StaleReason::CursorAheadOfHead),
        (9, StaleReason::RetentionFloorBreach),
        (14, StaleReason::ReplayBudgetExceeded),
    ] {
        let (before, reply) = client.subscribe(OTHER, cursor).await;
        let error = refusal(&reply);
        assert_eq!(
            (error.code, error.full_resync_required),
            (ErrorCode::StaleCursor, Some(true))
        );
        assert_eq!(error.reason_codes, [reason]);
        let stale = &error.stale_topics[0];
        assert_eq!(
            (
                stale.retention_floor,
                stale.head_watermark,
                stale.resume_after
            ),
            (10, 20, cursor)
        );
        assert_eq!(
            error.snapshot_plan.as_ref().unwrap().topics[0].snapshot,
            Some(whole.clone())
        );
        let [ServerMessage::Error(pushed), ServerMessage::Frame(frame)] = before.as_slice() else {
            panic!("{before:?}");
        };
        assert_eq!(
            (pushed, frame.kind, frame.seq),
            (&error, FrameKind::Error, 0)
        );
        assert_eq!(frame.payload::<ErrorBody>().unwrap(), error);
    }
    assert_eq!(
        client.resume(OTHER, 20).await,
        [0_u64; 0],
        "the snapshot's watermark is good"
    );
    target.publish(OTHER, 21, 21).await;
    assert_eq!(client.next_seq().await, 21);
}

#[tokio::test]
async fn an_upgrade_is_refused_with_its_reason() {
    let target = Target::start(Lane::Khala);
    let narrow = TokenRequest {
        scopes: vec![SCOPE_CHECKPOINT.to_owned()],
        ..subscriber()
    };
    let narrow = target.grant(&narrow).await.token;
    let good = target.token().await;
    let (head, tail) = good.split_at(good.len() - 8);
    let forged = format!("{head}{}", tail.chars().rev().collect::<String>());
    let soon = target.token_for(1).await;
    for (path, headers, status, reason) in [
        (
            "/sync/socket/websocket?vsn=2.0.0".to_owned(),
            vec![],
            401,
            "missing_token",
        ),
        (khala_path("nonsense"), vec![], 401, "invalid_signature"),
        (khala_path(&forged), vec![], 401, "invalid_signature"),
        (khala_path(&narrow), vec![], 403, "missing_scope"),
        (
            khala_path(&good),
            vec![("origin", "http://elsewhere")],
            403,
            "origin_not_allowed",
        ),
        (
            format!("/sync/socket/websocket?token={good}&vsn=1.0.0"),
            vec![],
            400,
            "upgrade_required",
        ),
        (
            format!("/sync/socket/websocket?token={good}&schema_version=2"),
            vec![],
            400,
            "unsupported_schema_version",
        ),
    ] {
        let refused = target.socket(&path, &headers).await.unwrap_err();
        assert_eq!(
            (refused.status.as_u16(), error_of(&refused).as_str()),
            (status, reason)
        );
    }
    target
        .socket(&khala_path(&good), &[("origin", "http://localhost:3000")])
        .await
        .unwrap();
    target.socket(&khala_path(&soon.token), &[]).await.unwrap();
    until_unix(soon.expires_at).await;
    let refused = target
        .socket(&khala_path(&soon.token), &[])
        .await
        .unwrap_err();
    assert_eq!(
        (refused.status.as_u16(), error_of(&refused).as_str()),
        (401, "token_expired")
    );
    assert_eq!(target.status().await.refused["invalid_signature"], 2);
}

/// Until a whole second of the wall clock.
async fn until_unix(second: u64) {
    let left = (second * 1_000_000).saturating_sub(host::clock::unix_micros());
    tokio::time::sleep(Duration::from_micros(left)).await;
}

#[tokio::test]
async fn upgrades_beyond_the_rate_are_told_to_come_back() {
    let target = Target::with(Lane::Khala, None, |lane, _| {
        lane.accept_rate = Some(Rate::per_second(20.0));
    });
    let token = target.token().await;
    let mut refused = 0;
    for _ in 0..10 {
        if let Err(answer) = target.socket(&khala_path(&token), &[]).await {
            assert_eq!(
                (answer.status.as_u16(), &answer.headers["retry-after"]),
                (503, &"1".parse().unwrap())
            );
            refused += 1;
        }
    }
    let status = target.status().await;
    assert!(refused > 0);
    assert_eq!(
        (status.refused_rate, status.upgrades),
        (refused, 10 - refused)
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_or_are_not_granted_are_refused() {
    let target = Target::start(Lane::Khala);
    let token = target.token().await;
    let mut client = target.khala(&token).await;
    let (_, reply) = client.subscribe(RIVAL, 0).await;
    let error = refusal(&reply);
    assert_eq!(
        (error.code, error.topic.as_deref()),
        (ErrorCode::ForbiddenTopic, Some("run:rival:events"))
    );
    let other = Request::Other {
        topic: "sync:v1".to_owned(),
        event: "sync:unheard_of".to_owned(),
    };
    assert_eq!(
        refusal(&client.ask(&other).await.1).code,
        ErrorCode::BadSubscription
    );
    client.socket.send(Message::text("{")).await.unwrap();
    assert!(
        matches!(client.next().await, ServerMessage::Error(error) if error.code == ErrorCode::BadSubscription)
    );
    for each in [Request::Heartbeat, Request::TransportHeartbeat] {
        assert!(matches!(client.ask(&each).await.1, Reply::Ok(_)));
    }
    let mut limited = false;
    for _ in 0..200 {
        limited |= matches!(client.ask(&Request::Heartbeat).await.1, Reply::Error(error)
            if error["code"] == "rate_limited" && error["retry_after_ms"].as_u64() > Some(0));
    }
    assert!(limited);
}

#[tokio::test]
async fn an_unsubscribed_topic_is_silent() {
    let target = Target::start(Lane::Khala);
    let mut client = target.khala(&target.token().await).await;
    client.resume(STREAM, 0).await;
    client.resume(OTHER, 0).await;
    let topics = vec!["run:1:events".to_owned()];
    client
        .ask(&Request::Unsubscribe(Unsubscribe { topics }))
        .await;
    target.publish(STREAM, 1, 1).await;
    target.publish(OTHER, 1, 1).await;
    let ServerMessage::UpdateBatch(batch) = client.next().await else {
        panic!("not a batch");
    };
    assert_eq!(batch.updates[0].topic, "run:2:events");
}

#[tokio::test]
async fn a_live_connection_ends_with_its_token() {
    let target = Target::start(Lane::Khala);
    let grant = target.token_for(1).await;
    let mut client = target.khala(&grant.token).await;
    client.resume(STREAM, 0).await;
    assert!(matches!(client.next().await, ServerMessage::Error(error)
        if error.code == ErrorCode::Unauthorized && error.message == "token_expired"));
    assert!(host::clock::unix_micros() >= grant.expires_at * 1_000_000);
    let close = client.next_or_close().await.unwrap_err();
    assert_eq!(
        close,
        Some((CloseCode::POLICY_VIOLATION, "token_expired".to_owned()))
    );
    assert_eq!(target.status().await.expired_live, 1);
}

#[tokio::test]
async fn a_silent_client_is_closed_and_a_heartbeat_keeps_it() {
    let target = Target::with(Lane::Khala, None, |lane, _| {
        lane.profile.server_tick = Span::from_millis(50);
        lane.profile.heartbeat_timeout = Span::from_millis(200);
    });
    let token = target.token().await;
    let mut silent = target.khala(&token).await;
    let mut talking = target.khala(&token).await;
    let closed = tokio::spawn(async move { silent.next_or_close().await.unwrap_err() });
    while !closed.is_finished() {
        talking.ask(&Request::Heartbeat).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(
        closed.await.unwrap(),
        Some((CloseCode::NORMAL_CLOSURE, "heartbeat_timeout".to_owned()))
    );
    talking.ask(&Request::Heartbeat).await;
}

#[tokio::test]
async fn publishers_append_in_order_once() {
    let target = Target::start(Lane::Khala);
    let first = appended(&target.append(&event(STREAM, 1)).await);
    assert_eq!((first.seq, first.duplicate), (1, false));
    let repeated = appended(&target.append(&event(STREAM, 1)).await);
    assert_eq!((repeated.seq, repeated.duplicate), (1, true));
    let conflict = target.append(&event(STREAM, 9)).await;
    assert_eq!(
        (conflict.status.as_u16(), error_of(&conflict).as_str()),
        (
            409,
            "sequence_conflict expected_next_seq=9 actual_next_seq=2"
        )
    );
    let stranger = target
        .post(lanes::khala::ingress::APPEND_PATH, &(), "guess")
        .await;
    assert_eq!(stranger.status, 401);
    let bearer = format!("Bearer {SECRET}");
    let path = format!("/internal/sync/head?stream_id={STREAM}");
    let head = target
        .send(Method::GET, &path, &[("authorization", &bearer)], "")
        .await;
    assert_eq!(json::<Head>(&head), Head { head: 1, floor: 0 });
}

#[tokio::test]
async fn a_restarted_lane_has_its_address_and_its_events() {
    let mut target = Target::start(Lane::Khala);
    target.publish(STREAM, 1, 5).await;
    let token = target.token().await;
    let mut client = target.khala(&token).await;
    client.resume(STREAM, 5).await;
    target.stop_lane().await;
    assert_eq!(client.next_or_close().await.unwrap_err(), None, "no Close");
    target.start_lane();
    let mut client = target.khala(&token).await;
    assert_eq!(client.resume(STREAM, 3).await, [4, 5]);
    target.publish(STREAM, 6, 6).await;
    assert_eq!(client.next_seq().await, 6);
}
