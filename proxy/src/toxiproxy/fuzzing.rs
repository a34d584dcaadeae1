//! The property of request bodies that fuzzing tries to refute.

use host::http::Failure;
use serde_json::{Map, json};

use super::input::{ProxyInput, ProxyPatch, ToxicInput, ToxicPatch};
use crate::toxics::{Settings, TYPES};

/// A body is read or refused with 400, and a toxic that was read is the same when it is read from its own view. The first
/// byte says what the body is meant for.
pub fn bodies(bytes: &[u8]) {
    let (which, body) = bytes.split_first().unwrap_or((&0, bytes));
    let read = match which % 5 {
        0 => ProxyInput::read(body).map(drop),
        1 => ProxyInput::read_all(body).map(drop),
        2 => ProxyPatch::read(body).map(drop),
        3 => toxic(body).map(|(toxic, settings)| {
            let again = json!({
                "name": toxic.name, "type": settings.name(), "stream": toxic.stream,
                "attributes": settings, "toxicity": toxic.toxicity.as_ratio(),
            });
            let again = self::toxic(again.to_string().as_bytes());
            let (other, same) = again.expect("what was answered can be asked for");
            assert_eq!((&other.name, same), (&toxic.name, settings));
        }),
        _ => {
            let kind = TYPES[usize::from(which / 5) % TYPES.len()];
            let before = Settings::parse(kind, Map::new()).expect("the type exists");
            // Some types make no sense with all their defaults.
            let Ok(before) = before else { return };
            let unchanged = ToxicPatch::read(b"{}", &before);
            assert_eq!(unchanged.expect("nothing is asked for").settings, before);
            ToxicPatch::read(body, &before).map(drop)
        }
    };
    if let Err(refused) = read {
        assert_eq!(refused.status, 400, "{refused}");
    }
}

fn toxic(body: &[u8]) -> Result<(ToxicInput, Settings), Failure> {
    let mut toxic = ToxicInput::read(body)?;
    toxic.check_type()?;
    let settings = toxic.settings()?;
    Ok((toxic, settings))
}
