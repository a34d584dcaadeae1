//! Toxics that come and go on a busy connection.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_websockets::{Message, ServerBuilder, WebSocketStream};

use super::open;
use crate::harness::{pattern, upstream};
use crate::toxiproxy::Api;

const MESSAGES: usize = 12_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that tells its number.
fn numbered(number: usize) -> Message {
    let length = number * 7_919 % 1_500;
    Message::binary([&number.to_be_bytes()[..], &pattern(length)].concat())
}

/// Sends all messages and takes what comes until the last one has: the numbers, each of a message that is what it was.
async fn talk<S>(socket: WebSocketStream<S>) -> Vec<usize>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut to, mut from) = socket.split();
    let sending = async {
        for number in 0..MESSAGES {
            to.send(numbered(number)).await.unwrap();
        }
    };
    let hearing = async {
        let mut heard = Vec::new();
        while heard.last() != Some(&(MESSAGES - 1)) {
            let message = from.next().await.unwrap().unwrap();
            let number = message.as_payload()[..8].try_into().unwrap();
            let number = usize::from_be_bytes(number);
            assert!(message.as_payload()[..] == numbered(number).as_payload()[..]);
            heard.push(number);
        }
        heard
    };
    tokio::join!(sending, hearing).1
}

/// What client and server hear of each other while these come and go.
async fn toggled(toxics: &[(&str, Value)]) -> (Vec<usize>, Vec<usize>) {
    let (heard, hears) = oneshot::channel();
    let heard = std::sync::Mutex::new(Some(heard));
    let server = upstream(move |stream| {
        let heard = heard.lock().unwrap().take();
        async move {
            let socket = ServerBuilder::new().accept(stream).await.unwrap().1;
            let numbers = talk(socket).await;
            heard.unwrap().send(numbers).unwrap();
        }
    });
    let api = Api::start();
    let socket = open(api.proxy(server).await).await;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let toggling = async {
        let mut toggles = 0;
        for ((kind, attributes), stream) in toxics.iter().cycle().zip(
            ["both", "upstream", "both", "downstream"]
                .into_iter()
                .cycle(),
        ) {
            let toxic = api.toxic(kind, stream, attributes.clone()).await;
            let over = tokio::time::timeout(Duration::from_millis(4), &mut stopped).await;
            let name = toxic["name"].as_str().unwrap();
            api.delete(&format!("/proxies/p/toxics/{name}")).await;
            toggles += 1;
            if over.is_ok() {
                return toggles;
            }
        }
        toggles
    };
    let talking = async {
        let both = async { tokio::join!(talk(socket), hears) };
        let both = tokio::time::timeout(PATIENCE, both).await.unwrap();
        drop(stop);
        (both.0, both.1.unwrap())
    };
    let (toggles, heard) = within_patience(async { tokio::join!(toggling, talking) }).await;
    assert!(toggles > toxics.len(), "{toggles}");
    heard
}

async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE * 2, future).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_loses_nothing_comes_and_goes_and_nothing_is_lost() {
    let (client, server) = toggled(&[
        ("ws_fragment", json!({"size": 700})),
        ("ws_drop", json!({"match": {"contains": "never said"}})),
        (
            "ws_delay",
            json!({"match": {"every": 7}, "delay": 3, "jitter": 2}),
        ),
        ("ws_replay", json!({"match": {"nth": 1_000_000}})),
        ("ws_fragment", json!({"match": {"share": 0.5}, "size": 1})),
        ("latency", json!({"latency": 2})),
    ])
    .await;
    let all: Vec<_> = (0..MESSAGES).collect();
    assert!(client == all && server == all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_is_dropped_whole_and_the_rest_is_in_order() {
    // One in 256: those whose lowest byte is 7, of which the last message is none.
    let (client, server) = toggled(&[
        ("ws_drop", json!({"match": {"bytes": "07", "offset": 7}})),
        ("ws_fragment", json!({"size": 900})),
    ])
    .await;
    for heard in [client, server] {
        assert!(heard.is_sorted_by(|one, next| one < next));
        let others = (0..MESSAGES).filter(|number| number % 256 != 7);
        assert!(
            heard.len() < MESSAGES
                && others.eq(heard.into_iter().filter(|number| number % 256 != 7))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_moved_arrives_once() {
    let all: Vec<_> = (0..MESSAGES).collect();
    let (mut client, mut server) = toggled(&[
        (
            "ws_reorder",
            json!({"match": {"bytes": "07", "offset": 7}, "window": 2}),
        ),
        ("ws_swallow", json!({})),
    ])
    .await;
    assert!(client != all && server != all, "something was moved");
    for heard in [&mut client, &mut server] {
        heard.sort_unstable();
        assert!(*heard == all);
    }
}
