//! A WebSocket message with content, of either kind. What else a connection carries (pings, closes) is the driver's.

use std::borrow::Cow;

use tokio_websockets::Message;

/// A message as it goes over a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A text message.
    Text(Cow<'a, str>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
}

impl<'a> Frame<'a> {
    /// What a message carries; `None` for a ping, a pong or a close.
    #[must_use]
    pub fn of(message: &'a Message) -> Option<Self> {
        match message.as_text() {
            Some(text) => Some(Self::Text(Cow::Borrowed(text))),
            None => message
                .is_binary()
                .then(|| Self::Binary(Cow::Borrowed(message.as_payload()))),
        }
    }

    /// The text; `None` for a binary message.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The message to send.
    #[must_use]
    pub fn into_message(self) -> Message {
        match self {
            Self::Text(text) => Message::text(text.into_owned()),
            Self::Binary(bytes) => Message::binary(bytes.into_owned()),
        }
    }
}

impl From<String> for Frame<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<Vec<u8>> for Frame<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(Cow::Owned(bytes))
    }
}

impl<'a> From<&'a str> for Frame<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}
