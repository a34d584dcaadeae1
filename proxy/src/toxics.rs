//! Toxics: the faults of the standalone proxy's API. Each is one file with its settings, as they stand in `attributes`,
//! and what it does; a line in the registry here gives it its name.

mod draws;
pub(crate) mod edit;
mod gaps;
mod selector;

use std::sync::Arc;

use model::fault::Direction;
use model::instant::Mono;
use model::quantity::{Share, Span};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value};

use self::accept_limit::Gate;
use self::draws::Draws;
use crate::faults::{Effects, Rule, Stage};
use crate::plane::Handle;
use crate::tap::Way;

/// Declares the toxics: for each its type's name, its file and its settings.
macro_rules! registry {
    ($($name:literal => $file:ident::$Settings:ident,)*) => {
        $(pub(crate) mod $file;)*

        /// The names of all types.
        pub(crate) const TYPES: &[&str] = &[$($name),*];

        /// The settings of a toxic of any type.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub(crate) enum Settings {
            $($Settings($file::$Settings),)*
        }

        impl Settings {
            /// Settings of this type from attributes, of which each may be missing; `None` where there is no such
            /// type.
            ///
            /// # Errors
            /// What is wrong with them.
            pub(crate) fn parse(name: &str, attributes: Map<String, Value>) -> Option<Result<Self, String>> {
                let parsed = match name {
                    $($name => serde_json::from_value(Value::Object(attributes)).map(Self::$Settings),)*
                    _ => return None,
                };
                Some(parsed.map_err(|error| error.to_string()).and_then(|settings| {
                    settings.behaviour().check()?;
                    Ok(settings)
                }))
            }

            /// The type's name.
            pub(crate) const fn name(&self) -> &'static str {
                match self {
                    $(Self::$Settings(_) => $name,)*
                }
            }

            fn behaviour(&self) -> &dyn Behaviour {
                match self {
                    $(Self::$Settings(settings) => settings,)*
                }
            }
        }

        /// Every type's name and the schema of its attributes.
        fn schemas(generator: &mut SchemaGenerator) -> Vec<(&'static str, Schema)> {
            vec![$(($name, $file::$Settings::json_schema(generator)),)*]
        }
    };
}

registry! {
    "latency" => latency::Latency,
    "bandwidth" => bandwidth::Bandwidth,
    "slow_close" => slow_close::SlowClose,
    "timeout" => timeout::Timeout,
    "reset_peer" => reset_peer::ResetPeer,
    "slicer" => slicer::Slicer,
    "limit_data" => limit_data::LimitData,
    "down" => down::Down,
    "connect_latency" => connect_latency::ConnectLatency,
    "refuse" => refuse::Refuse,
    "half_open" => half_open::HalfOpen,
    "one_way" => one_way::OneWay,
    "corrupt" => corrupt::Corrupt,
    "loss_stall" => loss_stall::LossStall,
    "accept_limit" => accept_limit::AcceptLimit,
    "ws_close" => ws_close::WsClose,
    "ws_drop" => ws_drop::WsDrop,
    "ws_delay" => ws_delay::WsDelay,
    "ws_duplicate" => ws_duplicate::WsDuplicate,
    "ws_reorder" => ws_reorder::WsReorder,
    "ws_corrupt" => ws_corrupt::WsCorrupt,
    "ws_truncate" => ws_truncate::WsTruncate,
    "ws_fragment" => ws_fragment::WsFragment,
    "ws_oversize" => ws_oversize::WsOversize,
    "ws_swallow" => ws_swallow::WsSwallow,
    "ws_violate" => ws_violate::WsViolate,
    "ws_replay" => ws_replay::WsReplay,
}

impl Settings {
    /// Whether it acts on the messages of a WebSocket.
    pub(crate) fn is_about_messages(&self) -> bool {
        self.name().starts_with("ws_")
    }

    /// Does to a connection's effects what the toxic does to it.
    pub(crate) fn take_hold(&self, on: &On<'_>, slots: &mut Slots, effects: &mut Effects) {
        self.behaviour().take_hold(on, slots, effects);
    }
}

/// What a type of toxic is.
trait Behaviour {
    /// Whether it makes sense as it is.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Does to a connection's effects what it does.
    fn take_hold(&self, on: &On<'_>, slots: &mut Slots, effects: &mut Effects);
}

/// A toxic of a proxy.
#[derive(Debug, Clone)]
pub(crate) struct Toxic {
    pub(crate) name: String,
    pub(crate) settings: Settings,
    /// As it was given, in any case of letters.
    pub(crate) stream: String,
    pub(crate) direction: Direction,
    /// The share of the connections that it takes.
    pub(crate) toxicity: Share,
    pub(crate) lifetime: Option<Lifetime>,
    /// Its number: the generation that it first came with, which later changes of it keep.
    pub(crate) uid: u64,
    pub(crate) gate: Arc<Gate>,
}

/// How long a toxic stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// As it was asked for.
    pub(crate) span: Span,
    /// It removes itself then.
    pub(crate) until: Mono,
}

/// The turns that a connection has been given by limits on connecting, by the toxic's number.
pub(crate) type Slots = Vec<(u64, accept_limit::Slot)>;

/// A connection that a toxic takes.
pub(crate) struct On<'a> {
    pub(crate) rule: &'a Arc<Rule>,
    pub(crate) toxic: &'a Toxic,
    pub(crate) handle: &'a Handle,
    pub(crate) stage: Stage,
}

impl On<'_> {
    /// Whether the connection was accepted when the toxic was there, and does not lead anywhere yet.
    const fn is_new(&self) -> bool {
        self.toxic.uid <= self.stage.born && !self.stage.is_dialled
    }

    fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        let direction = self.toxic.direction;
        [Way::Upstream, Way::Downstream]
            .into_iter()
            .filter(move |way| way.is_in(direction))
    }

    /// What the toxic decides about one direction of the connection.
    fn draws(&self, way: Way) -> Draws {
        let subject = format!("connection-{}/{}", self.handle.ordinal, way.name());
        Draws::new(Arc::clone(self.rule), subject)
    }
}

/// The schema of the attributes of each type of toxic, by its name.
#[must_use]
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .into_generator();
    let schemas = schemas(&mut generator);
    let schemas = schemas
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema.to_value()));
    Value::Object(schemas.collect())
}
