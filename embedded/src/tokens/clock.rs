//! The wall clock as the token service sees it, and the fault `clock_skew`, which sets it wrong. The machine's own clock is
//! never touched, and the skew ends with the process.
//!
//! Figures: `tokens_skewed`, `offset_s`, `ahead` (1 or 0), `iat_unix` (of the latest such token), `true_unix` (the time at which
//! that was issued).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use host::clock;
use host::faults::Holder;
use host::http::{Failure, StatusCode};
use model::fault::{Fault, FaultOrder, FaultView, Observation, Offset};
use model::ids::FaultId;
use model::instant::Bracket;

/// A clock that can be wrong by what one fault orders.
#[derive(Debug, Default)]
pub(super) struct SkewedClock {
    skews: Mutex<Vec<Skew>>,
}

#[derive(Debug)]
struct Skew {
    offset: Offset,
    view: FaultView,
}

impl SkewedClock {
    /// The time by which a token is issued, in micro-seconds since the Unix epoch. A token that is issued by a wrong time is
    /// what the fault does.
    pub(super) fn issue(&self) -> u64 {
        let (now, unix) = (clock::now(), clock::unix_micros());
        let mut skews = self.lock();
        let Some(Skew { offset, view }) = skews.iter_mut().find(|skew| skew.view.active) else {
            return unix;
        };
        let skewed = offset.applied_to(unix);
        let seen = &mut view.observation;
        seen.bitten += 1;
        seen.observed.get_or_insert(now);
        *seen.figures.entry("tokens_skewed".to_owned()).or_default() += 1;
        for (name, micros) in [("iat_unix", skewed), ("true_unix", unix)] {
            seen.figures.insert(name.to_owned(), micros / 1_000_000);
        }
        skewed
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Skew>> {
        self.skews.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder for SkewedClock {
    async fn inject(&self, order: FaultOrder) -> Result<FaultView, Failure> {
        let Fault::ClockSkew(settings) = &order.fault else {
            let text = format!(
                "a token service holds clock_skew only, not {}",
                order.fault.name()
            );
            return Err(Failure::new(StatusCode::BAD_REQUEST, text));
        };
        let asked = clock::now();
        let mut skews = self.lock();
        if let Some(other) = skews.iter().find(|skew| skew.view.active) {
            let text = format!(
                "the clock is {} off already by fault `{}`; undo that first",
                other.offset, other.view.id
            );
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        let offset = settings.offset;
        let figures = BTreeMap::from([
            ("tokens_skewed".to_owned(), 0),
            ("offset_s".to_owned(), offset.by().as_micros() / 1_000_000),
            ("ahead".to_owned(), u64::from(offset.is_ahead())),
        ]);
        let view = FaultView {
            id: order.id,
            active: true,
            injected: Bracket {
                asked,
                observed: clock::now(),
            },
            healed: None,
            lapsed: false,
            observation: Observation {
                figures,
                ..Observation::default()
            },
        };
        tracing::info!(fault = view.id, %offset, "tokens are issued by another time");
        skews.push(Skew {
            offset,
            view: view.clone(),
        });
        Ok(view)
    }

    async fn look(&self, id: &str) -> Option<FaultView> {
        let skews = self.lock();
        let skew = skews.iter().find(|skew| skew.view.id == id)?;
        Some(skew.view.clone())
    }

    async fn undo(&self, id: &str, lapsed: bool) -> Result<FaultView, Failure> {
        let asked = clock::now();
        let mut skews = self.lock();
        let skew = skews.iter_mut().find(|skew| skew.view.id == id);
        let Skew { view, .. } =
            skew.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("no fault `{id}`")))?;
        if view.active {
            view.active = false;
            view.lapsed = lapsed;
            view.healed = Some(Bracket {
                asked,
                observed: clock::now(),
            });
        }
        Ok(view.clone())
    }

    fn ids(&self) -> Vec<FaultId> {
        let skews = self.lock();
        skews.iter().map(|skew| skew.view.id.clone()).collect()
    }
}
