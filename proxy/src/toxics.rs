//! Toxics: the faults of the standalone proxy's API. Each is one file with its settings, as they stand in `attributes`,
//! and what it does; a line in the registry here gives it its name.

mod acts;
mod draws;
pub(crate) mod edit;
mod gaps;
mod selector;
mod slots;

use std::sync::Arc;

use model::fault::{self, Direction, FaultOrder};
use model::instant::Mono;
use model::quantity::{Share, Span};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::DropGuard;

use self::accept_limit::Gate;
pub(crate) use self::acts::Acts;
pub(crate) use self::draws::Draws;
pub(crate) use self::slots::Slots;
use crate::faults::{Effects, Rule, Stage};
use crate::identity::Subject;
use crate::plane::{Handle, Identity};
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
    "ws_refuse_upgrade" => ws_refuse_upgrade::WsRefuseUpgrade,
    "ws_slow_upgrade" => ws_slow_upgrade::WsSlowUpgrade,
    "ws_stall_upgrade" => ws_stall_upgrade::WsStallUpgrade,
    "ws_rewrite_upgrade" => ws_rewrite_upgrade::WsRewriteUpgrade,
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
    "tls_expired" => tls_expired::TlsExpired,
    "tls_wrong_host" => tls_wrong_host::TlsWrongHost,
    "tls_unknown_issuer" => tls_unknown_issuer::TlsUnknownIssuer,
    "tls_handshake_stall" => tls_handshake_stall::TlsHandshakeStall,
}

impl Settings {
    /// Those of a toxic that a drill orders.
    ///
    /// # Errors
    /// There is no such type, or its attributes are wrong.
    pub(crate) fn of(toxic: &fault::Toxic) -> Result<Self, String> {
        let kind = &toxic.kind;
        Self::parse(kind, toxic.attributes.clone())
            .ok_or_else(|| {
                format!(
                    "there is no toxic `{kind}`; it is one of {}",
                    TYPES.join(", ")
                )
            })?
            .and_then(|settings| {
                settings.check_direction(toxic.direction)?;
                Ok(settings)
            })
            .map_err(|reason| format!("toxic `{kind}`: {reason}"))
    }

    /// Whether it makes sense in that direction.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check_direction(&self, direction: Direction) -> Result<(), String> {
        self.behaviour().check_direction(direction)
    }

    /// Whether it decides by chance.
    pub(crate) fn draws(&self) -> bool {
        self.behaviour().draws()
    }

    /// Whether it can do something on a proxy that ends TLS, or does not.
    ///
    /// # Errors
    /// It cannot, and what to do.
    pub(crate) fn check_tls(&self, ends_here: bool) -> Result<(), String> {
        if ends_here || !self.behaviour().is_of_the_handshake() {
            return Ok(());
        }
        Err(format!(
            "`{}` needs a proxy that ends TLS, and this one passes it through; create the proxy with \
             \"tls\": {{\"self_issued\": true}} or a certificate and key of yours, see docs/tls.md",
            self.name()
        ))
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

    /// Whether it makes sense in that direction.
    fn check_direction(&self, _: Direction) -> Result<(), String> {
        Ok(())
    }

    /// Whether it decides by chance what it does to a connection that it takes, and so has to know whose that is.
    fn draws(&self) -> bool {
        true
    }

    /// Whether it acts when TLS begins, before anybody has said who they are.
    fn is_of_the_handshake(&self) -> bool {
        false
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
    /// Nobody waits for the end of its lifetime when it has gone before.
    pub(crate) expiry: Option<Arc<DropGuard>>,
}

impl Toxic {
    /// One that a drill orders, which ends with its lease.
    pub(crate) fn leased(
        order: &FaultOrder,
        toxic: &fault::Toxic,
        uid: u64,
    ) -> Result<Self, String> {
        Ok(Self {
            name: order.id.clone(),
            settings: Settings::of(toxic)?,
            stream: String::new(),
            direction: toxic.direction,
            toxicity: order.share,
            lifetime: None,
            uid,
            gate: Arc::default(),
            expiry: None,
        })
    }

    /// Whether it decides before anybody can say who he is.
    pub(crate) fn is_of_the_handshake(&self) -> bool {
        self.settings.behaviour().is_of_the_handshake()
    }

    /// Whom it decides about; `None` as long as that is to be read.
    pub(crate) fn subject(&self, handle: &Handle) -> Option<Subject> {
        if self.is_of_the_handshake() {
            Some(Subject::Connection(handle.ordinal))
        } else {
            handle.subject()
        }
    }

    /// Its stream, in small letters.
    const fn stream_name(&self) -> &'static str {
        match self.direction {
            Direction::Upstream => "upstream",
            Direction::Downstream => "downstream",
            Direction::Both => "both",
        }
    }
}

/// How long a toxic stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lifetime {
    /// As it was asked for.
    pub(crate) span: Span,
    /// It removes itself then.
    pub(crate) until: Mono,
}

/// A connection that a toxic takes.
pub(crate) struct On<'a> {
    pub(crate) rule: &'a Arc<Rule>,
    pub(crate) toxic: &'a Toxic,
    pub(crate) handle: &'a Arc<Handle>,
    pub(crate) stage: Stage,
}

impl On<'_> {
    /// Whether the connection was accepted when the toxic was there, and does not lead anywhere yet.
    const fn is_new(&self) -> bool {
        self.toxic.uid <= self.stage.born && !self.stage.is_dialled
    }

    /// What it does depends on the request, of which nothing may go on before it has been read.
    fn needs_request(&self, effects: &mut Effects) {
        effects.undecided |= self.handle.identity() == Identity::Unread;
    }

    fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        let direction = self.toxic.direction;
        [Way::Upstream, Way::Downstream]
            .into_iter()
            .filter(move |way| way.is_in(direction))
    }

    /// What the toxic is seen to do to the connection.
    fn acts(&self) -> Acts {
        Acts::new(self.rule, self.handle)
    }

    /// What the toxic decides about one direction of the connection.
    fn draws(&self, way: Way) -> Draws {
        let subject = self.handle.subject();
        let subject = subject.unwrap_or(Subject::Connection(self.handle.ordinal));
        Draws::new(Arc::clone(self.rule), subject, way)
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
