//! Many appends at once over one connection, without a wait for each answer: how a publisher outruns a server that
//! answers before it writes to disk. Only on the spacetime lane, whose calls are answered in their order.

use futures_util::{SinkExt, StreamExt};
use model::event::Event;
use model::ids::Seq;
use tokio_websockets::Message;

use crate::connection::{Socket, dial};
use crate::spacetime::message::{ServerMessage, UpdateStatus};
use crate::store::{AppendError, Store};

/// As many calls as a server queues for one connection, with room to spare: 2,048 make it close.
pub const MOST: usize = 1_024;

/// A publisher's connection.
#[derive(Debug)]
pub struct Pipeline {
    socket: Socket,
    store: Store,
}

impl Pipeline {
    /// Connects to the store's lane; `None` where that lane has no such thing.
    ///
    /// # Errors
    /// The lane is away, or refuses the connection.
    pub async fn open(store: &Store) -> Result<Option<Self>, AppendError> {
        let Some((peer, upgrade)) = store.pipeline() else {
            return Ok(None);
        };
        let opened = dial(&peer, &upgrade, 0).await;
        let socket = opened.map_err(|refusal| AppendError::NotSent(refusal.reason))?;
        let store = store.clone();
        Ok(Some(Self { socket, store }))
    }

    /// Appends events as the seqs from `first` on. `acknowledged` is told of each as its answer comes, in order.
    ///
    /// # Errors
    /// The connection broke, or a call failed: what was not acknowledged by then may have been appended or not.
    pub async fn append(
        &mut self,
        events: &[Event],
        first: Seq,
        mut acknowledged: impl FnMut(usize, Seq),
    ) -> Result<(), AppendError> {
        let (mut sink, mut stream) = (&mut self.socket).split();
        let send = async {
            for (request, (event, seq)) in (1..).zip(events.iter().zip(first..)) {
                let call = self.store.call_of(event, seq, request);
                sink.feed(Message::text(call.encode())).await?;
            }
            sink.flush().await
        };
        let receive = async {
            let mut done = 0;
            while done < events.len() {
                let message = match stream.next().await {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => return Err(AppendError::Unknown(error.to_string())),
                    None => return Err(AppendError::Unknown("closed by the lane".to_owned())),
                };
                match message.as_text().map(ServerMessage::decode) {
                    Some(Ok(ServerMessage::TransactionUpdate(update))) => match update.status {
                        UpdateStatus::Committed(_) => {
                            acknowledged(done, first + done as u64);
                            done += 1;
                        }
                        UpdateStatus::Failed(why) => return Err(AppendError::Conflict(why)),
                        UpdateStatus::OutOfEnergy(_) => {
                            return Err(AppendError::Refused("out of energy".to_owned()));
                        }
                    },
                    Some(Err(error)) => return Err(AppendError::Unknown(error.to_string())),
                    // The greeting, pings: no answers.
                    _ => {}
                }
            }
            Ok(())
        };
        // What cannot be sent shows as a connection that ends without the answers.
        let (_, received) = tokio::join!(send, receive);
        received
    }
}
