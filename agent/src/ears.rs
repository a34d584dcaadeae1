//! Who hears whom, one way: an agent listens for datagrams, another one sends some, and the first tells how many came. A
//! partition that cuts one way only is seen to do so.
//!
//! A datagram is the ear's nonce (16 bytes, so that nobody else's counts), the sender's tag and a number (2 bytes each, big
//! endian). Nothing is ever sent back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::http::{Failure, StatusCode};
use model::quantity::Span;
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use crate::faults::network::hex;

const NONCE: usize = 16;
const DATAGRAM: usize = NONCE + 4;
/// More are open only where somebody forgets to close them.
const MOST_EARS: usize = 64;
/// Whoever opened it has gone.
const LONGEST_LIFE: Duration = Duration::from_secs(30);
/// A probe, and no load.
const MOST_DATAGRAMS: u16 = 256;
/// Between two datagrams, so that no buffer on the way overflows.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Span = Span::from_secs(5);
/// Below are the ports of services, which are not to be sent anything.
const LOWEST_PORT: u16 = 1024;

/// The answer to `POST /ears`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ear {
    /// Where it listens, on all addresses of the host.
    pub port: u16,
    /// With what a datagram has to begin, in hexadecimal.
    pub nonce: String,
}

/// `DELETE /ears/{port}`: how long to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// So many datagrams of each tag are waited for …
    pub expected: BTreeMap<u16, u16>,
    /// … for no longer than that; at most 5 s.
    pub wait: Span,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// How many came, by tag, each counted once.
    pub by_tag: BTreeMap<u16, u32>,
}

/// `POST /sends`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Send {
    /// Where; a port above 1023.
    pub to: SocketAddr,
    /// The ear's.
    pub nonce: String,
    /// Whose they are.
    pub tag: u16,
    /// How many; 1 to 256.
    pub count: u16,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// How many were sent.
    pub sent: u32,
    /// Of those, how many this host's own kernel did not let out.
    pub stopped: u32,
}

/// The ears of an agent that are open.
#[derive(Debug, Default)]
pub struct Ears {
    open: Arc<Mutex<BTreeMap<u16, Listening>>>,
}

#[derive(Debug)]
struct Listening {
    nonce: [u8; NONCE],
    heard: Arc<Mutex<BTreeMap<u16, BTreeSet<u16>>>>,
    task: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ears {
    /// Begins to listen, for at most half a minute.
    ///
    /// # Errors
    /// 409 where too many are open, 500 where there is no port.
    pub async fn open(&self) -> Result<Ear, Failure> {
        if self.lock().len() >= MOST_EARS {
            let text = format!("{MOST_EARS} ears are open; close them, or wait {LONGEST_LIFE:?}");
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("a socket to listen on: {error}"),
            )
        };
        let socket = bind().await.map_err(|error| failed(&error))?;
        let port = socket.local_addr().map_err(|error| failed(&error))?.port();
        let mut nonce = [0_u8; NONCE];
        rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed(&error))?;
        let heard = Arc::default();
        let task = tokio::spawn(listen(socket, nonce, Arc::clone(&heard)));
        self.lock().insert(port, Listening { nonce, heard, task });
        let open = Arc::downgrade(&self.open);
        tokio::spawn(async move {
            tokio::time::sleep(LONGEST_LIFE).await;
            if let Some(open) = open.upgrade() {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                // Another one may have the port by now.
                if open.get(&port).is_some_and(|ear| ear.nonce == nonce) {
                    open.remove(&port);
                }
            }
        });
        Ok(Ear {
            port,
            nonce: hex(&nonce),
        })
    }

    /// Waits for what is expected, and listens no longer.
    ///
    /// # Errors
    /// 404 where there is no ear at that port, 422 for a wait that is too long.
    pub async fn close(&self, port: &str, close: &Close) -> Result<Heard, Failure> {
        if close.wait > LONGEST_WAIT {
            let text = format!("a wait of {} is longer than {LONGEST_WAIT}", close.wait);
            return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        let ear = port
            .parse()
            .ok()
            .and_then(|port: u16| self.lock().remove(&port));
        let Some(ear) = ear else {
            return Err(Failure::new(
                StatusCode::NOT_FOUND,
                format!("nothing listens at port `{port}`"),
            ));
        };
        let until = tokio::time::Instant::now() + close.wait.duration();
        loop {
            let by_tag = ear.counts();
            let all = close.expected.iter().all(|(tag, count)| {
                by_tag
                    .get(tag)
                    .is_some_and(|heard| *heard >= u32::from(*count))
            });
            if all || tokio::time::Instant::now() >= until {
                return Ok(Heard { by_tag });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Listening>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    fn counts(&self) -> BTreeMap<u16, u32> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |numbers: &BTreeSet<u16>| u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        heard
            .iter()
            .map(|(tag, numbers)| (*tag, count(numbers)))
            .collect()
    }
}

/// On both families, where the host has both.
async fn bind() -> io::Result<UdpSocket> {
    match UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await,
    }
}

async fn listen(
    socket: UdpSocket,
    nonce: [u8; NONCE],
    heard: Arc<Mutex<BTreeMap<u16, BTreeSet<u16>>>>,
) {
    let mut buffer = [0_u8; DATAGRAM + 1];
    loop {
        // What an earlier datagram has caused is told here too, and is nothing to an ear.
        let Ok(length) = socket.recv(&mut buffer).await else {
            continue;
        };
        if let Some((tag, number)) = read(&buffer[..length], &nonce) {
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            heard.entry(tag).or_default().insert(number);
        }
    }
}

fn read(datagram: &[u8], nonce: &[u8; NONCE]) -> Option<(u16, u16)> {
    let rest = datagram.strip_prefix(nonce)?;
    let [a, b, c, d] = *rest else { return None };
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Sends datagrams, a millisecond apart.
///
/// # Errors
/// 422 for what no ear can be, 500 where there is no socket.
pub async fn send(send: &Send) -> Result<Sent, Failure> {
    let refused = |text: String| Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    if send.to.port() < LOWEST_PORT {
        return refused(format!(
            "port {} is a service's; ears have {LOWEST_PORT} or more",
            send.to.port()
        ));
    }
    if send.count == 0 || send.count > MOST_DATAGRAMS {
        return refused(format!(
            "{} datagrams are wanted; it is 1 to {MOST_DATAGRAMS}",
            send.count
        ));
    }
    let Some(nonce) = unhex(&send.nonce) else {
        return refused(format!(
            "`{}` is no nonce of {NONCE} bytes in hexadecimal",
            send.nonce.escape_default()
        ));
    };
    let any: SocketAddr = if send.to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| {
        Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("a socket to send from: {error}"),
        )
    })?;
    let mut stopped = 0;
    for number in 0..send.count {
        let datagram = [&nonce[..], &send.tag.to_be_bytes(), &number.to_be_bytes()].concat();
        if let Err(error) = socket.send_to(&datagram, send.to).await {
            tracing::debug!(to = %send.to, %error, "a datagram was not let out");
            stopped += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Sent {
        sent: send.count.into(),
        stopped,
    })
}

fn unhex(text: &str) -> Option<[u8; NONCE]> {
    if text.len() != 2 * NONCE || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; NONCE];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(ear: &Ear, tag: u16, count: u16) -> Send {
        Send {
            to: ([127, 0, 0, 1], ear.port).into(),
            nonce: ear.nonce.clone(),
            tag,
            count,
        }
    }

    fn wait(expected: &[(u16, u16)], wait: u64) -> Close {
        Close {
            expected: expected.iter().copied().collect(),
            wait: Span::from_millis(wait),
        }
    }

    #[tokio::test]
    async fn what_was_sent_is_heard_by_tag_and_strangers_are_not() {
        let ears = Ears::default();
        let ear = ears.open().await.unwrap();
        let sent = send(&to(&ear, 1, 5)).await.unwrap();
        assert_eq!((sent.sent, sent.stopped), (5, 0));
        send(&to(&ear, 2, 3)).await.unwrap();
        let stranger = Send {
            nonce: "00".repeat(NONCE),
            ..to(&ear, 3, 9)
        };
        send(&stranger).await.unwrap();
        let heard = ears
            .close(&ear.port.to_string(), &wait(&[(1, 5), (2, 3)], 5_000))
            .await
            .unwrap();
        assert_eq!(heard.by_tag, [(1, 5), (2, 3)].into());
        let again = ears
            .close(&ear.port.to_string(), &wait(&[], 0))
            .await
            .unwrap_err();
        assert_eq!(again.status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn who_hears_nothing_says_so_when_time_is_up() {
        let ears = Ears::default();
        let ear = ears.open().await.unwrap();
        let heard = ears
            .close(&ear.port.to_string(), &wait(&[(1, 5)], 20))
            .await
            .unwrap();
        assert_eq!(heard.by_tag, BTreeMap::new());
    }

    #[tokio::test]
    async fn a_probe_is_bounded() {
        let ears = Ears::default();
        let ear = ears.open().await.unwrap();
        for wrong in [
            Send {
                to: ([127, 0, 0, 1], 53).into(),
                ..to(&ear, 1, 1)
            },
            to(&ear, 1, 0),
            to(&ear, 1, MOST_DATAGRAMS + 1),
            Send {
                nonce: "zz".repeat(NONCE),
                ..to(&ear, 1, 1)
            },
            Send {
                nonce: "é".repeat(NONCE),
                ..to(&ear, 1, 1)
            },
        ] {
            let refused = send(&wrong).await.unwrap_err();
            assert_eq!(
                refused.status,
                StatusCode::UNPROCESSABLE_ENTITY,
                "{wrong:?}"
            );
        }
        for _ in 1..MOST_EARS {
            ears.open().await.unwrap();
        }
        assert_eq!(ears.open().await.unwrap_err().status, StatusCode::CONFLICT);
    }
}
