//! A fault that is a worker: processor time or memory that it takes up.
//!
//! Figures of `cpu_burn`: `cores_asked`, `workers`, `cpu_ms`. Of `memory_fill`: `bytes_asked`, `bytes_held`,
//! `bytes_reserved`, `bytes_available_before`, `stopped_short`, `rss_bytes`. Of both: `worker_pid`, `worker_ended`.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use host::clock;
use host::http::{Failure, StatusCode};
use model::fault::{Fault, FaultOrder, Observation};
use model::instant::{Bracket, Mono};
use model::quantity::Span;
use tokio_util::sync::CancellationToken;

use super::super::NotApplied;
use super::super::deed::{Deed, Undone};
use super::worker::Worker;
use super::{failed, impossible};
use crate::journal::Undo;
use crate::memory::Memory;
use crate::pressure::{Config, Press, Word};
use crate::procfs;

/// A worker ends by itself so long after its lease: whoever undoes the fault is to find it.
const AFTER_LEASE: Span = Span::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// So much processor time is more than it takes to begin.
const BITES: Duration = Duration::from_millis(5);
/// On a machine whose cores are all taken by others.
const BITES_WITHIN: Duration = Duration::from_secs(5);
/// What takes longer goes on while the fault is in force.
const FILLS_WITHIN: Duration = Duration::from_secs(10);

/// What a fault takes up.
#[derive(Debug)]
pub(super) struct Taken {
    press: Press,
    /// Of a burn.
    cores_asked: u64,
}

impl Taken {
    /// What an order means on this machine.
    pub(super) fn of(fault: &Fault) -> Result<Self, Failure> {
        match fault {
            Fault::CpuBurn(settings) => {
                let there = std::thread::available_parallelism().map_err(|error| failed(&error))?;
                let there = u32::try_from(there.get()).unwrap_or(u32::MAX);
                let workers = settings.cores.of(there);
                if workers == 0 {
                    return Err(impossible(&"0 cores are none; write cores: 1"));
                }
                let asked = match settings.cores {
                    model::fault::Cores::Count(count) => count,
                    model::fault::Cores::Share(_) => workers,
                };
                Ok(Self {
                    press: Press::Cpu {
                        workers,
                        load: settings.load,
                        pin: settings.pin,
                    },
                    cores_asked: asked.into(),
                })
            }
            Fault::MemoryFill(settings) => {
                let memory = Memory::look().map_err(|error| impossible(&error))?;
                let reserve = memory.reserve(settings.reserve);
                if memory.available <= reserve {
                    return Err(impossible(&format_args!(
                        "nothing can be taken up: {} bytes of memory are available, and {reserve} have to stay so; ask \
                         for a smaller `reserve`, or free memory",
                        memory.available
                    )));
                }
                Ok(Self {
                    press: Press::Memory {
                        size: settings.size,
                        reserve: settings.reserve,
                    },
                    cores_asked: 0,
                })
            }
            other => Err(impossible(&format_args!(
                "`{}` is not a fault of a machine",
                other.name()
            ))),
        }
    }

    const fn is_memory(&self) -> bool {
        matches!(self.press, Press::Memory { .. })
    }
}

/// One worker.
#[derive(Debug)]
pub(super) struct PressureFault {
    taken: Taken,
    worker: Worker,
    lease: Span,
    /// Its processor time and its resident bytes before it was told to begin.
    before: OnceLock<(Duration, u64)>,
    interrupt: OnceLock<CancellationToken>,
}

impl PressureFault {
    /// Starts the worker, which does nothing before [`Deed::strike`]: it has to be there to be on record.
    pub(super) async fn aim(
        order: &FaultOrder,
        taken: Taken,
        program: &Path,
        journal: &Path,
    ) -> Result<Self, Failure> {
        let config = Config {
            press: taken.press.clone(),
            until: clock::now() + order.lease + AFTER_LEASE,
        };
        let worker = Worker::start(program, journal, &order.id, &config).await;
        Ok(Self {
            taken,
            worker: worker.map_err(|error| failed(&error))?,
            lease: order.lease,
            before: OnceLock::new(),
            interrupt: OnceLock::new(),
        })
    }

    async fn begin(&self) -> Result<(), NotApplied> {
        let pid = self.worker.pid();
        let usage = procfs::cpu_time(pid).zip(procfs::resident(pid));
        self.before.get_or_init(|| usage.unwrap_or_default());
        let told = self.worker.tell(Word::Go).await;
        told.map_err(|error| NotApplied::half_way(failed(&format_args!("worker {pid}: {error}"))))
    }

    async fn seen(&self) -> Result<(Mono, Observation), Failure> {
        let interrupt = self.interrupt.get().cloned().unwrap_or_default();
        tokio::select! {
            seen = self.seen_in_time() => seen,
            () = interrupt.cancelled() => Err(failed(&"called back before it was seen to bite")),
        }
    }

    async fn seen_in_time(&self) -> Result<(Mono, Observation), Failure> {
        let mut observation = Observation::default();
        if self.taken.is_memory() {
            // What is not taken up by then goes on, and is looked at again.
            let _ = tokio::time::timeout(FILLS_WITHIN, self.worker.done()).await;
        } else {
            let bites = async {
                while self.burnt() < BITES && !self.worker.has_ended() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            let _ = tokio::time::timeout(BITES_WITHIN, bites).await;
        }
        let observed = clock::now();
        self.tell(&mut observation, observed);
        let pid = self.worker.pid();
        if self.worker.has_ended() {
            let text = format!("worker {pid} ended by itself; the agent's log has what it said");
            return Err(failed(&text));
        }
        if observation.bitten == 0 {
            let said = &observation.figures;
            let text = format!(
                "worker {pid} was told to begin, and was not seen to take up anything: {said:?}"
            );
            return Err(Failure::new(StatusCode::CONFLICT, text));
        }
        Ok((observed, observation))
    }

    /// Its processor time since it was told to begin.
    fn burnt(&self) -> Duration {
        let before = self.before.get().map_or(Duration::ZERO, |before| before.0);
        let now = procfs::cpu_time(self.worker.pid()).unwrap_or_default();
        now.saturating_sub(before)
    }

    fn tell(&self, observation: &mut Observation, now: Mono) {
        let ended = self.worker.has_ended();
        let mut bitten = false;
        let figures = &mut observation.figures;
        if self.taken.is_memory() {
            figures.extend(self.worker.report().figures);
            if let Some(resident) = procfs::resident(self.worker.pid()).filter(|_| !ended) {
                let before = self.before.get().map_or(0, |before| before.1);
                let held = figures.get("bytes_held").copied().unwrap_or(0);
                // Some of it may have been swapped out.
                bitten = held > 0 && resident.saturating_sub(before) >= held / 2;
                figures.insert("rss_bytes".to_owned(), resident);
            }
        } else {
            figures.insert("cores_asked".to_owned(), self.taken.cores_asked);
            figures.extend(self.worker.report().figures);
            if !ended {
                let burnt = self.burnt();
                bitten = burnt >= BITES;
                let burnt = u64::try_from(burnt.as_millis()).unwrap_or(u64::MAX);
                figures.insert("cpu_ms".to_owned(), burnt);
            }
        }
        figures.insert("worker_pid".to_owned(), self.worker.pid().into());
        figures.insert("worker_ended".to_owned(), ended.into());
        if bitten {
            observation.bitten = 1;
            observation.observed.get_or_insert(now);
        }
    }
}

impl Deed for PressureFault {
    fn undo_record(&self) -> Undo {
        Undo::EndWorker {
            pid: self.worker.pid(),
            started: self.worker.started(),
        }
    }

    fn prepare<'a>(
        &'a self,
        interrupt: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.interrupt.get_or_init(|| interrupt.clone());
        Box::pin(async { Ok(()) })
    }

    fn strike(&self) -> BoxFuture<'_, Result<(), NotApplied>> {
        Box::pin(self.begin())
    }

    fn bite(&self) -> BoxFuture<'_, Result<(Mono, Observation), Failure>> {
        Box::pin(self.seen())
    }

    fn look<'a>(&'a self, observation: &'a mut Observation) -> BoxFuture<'a, ()> {
        self.tell(observation, clock::now());
        Box::pin(async {})
    }

    fn renewed(&self, until: Mono) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let until = until + AFTER_LEASE;
            if let Err(error) = self.worker.tell(Word::Until { until }).await {
                let (pid, lease) = (self.worker.pid(), self.lease);
                tracing::warn!(pid, %lease, %error, "the worker knows of an earlier end of the lease only");
            }
        })
    }

    fn undo<'a>(
        &'a self,
        _ending: bool,
        observation: &'a mut Observation,
    ) -> BoxFuture<'a, Result<Undone, Failure>> {
        Box::pin(async move {
            let asked = clock::now();
            self.tell(observation, asked);
            let had_ended = self.worker.has_ended();
            let status = self.worker.end().await.map_err(|error| failed(&error))?;
            let observed = clock::now();
            let pid = self.worker.pid();
            let reason = if had_ended {
                format!("worker {pid} had ended already ({status})")
            } else {
                format!("worker {pid} was ended")
            };
            Ok((Some(Bracket { asked, observed }), reason))
        })
    }

    fn traces(&self) -> Vec<String> {
        if self.worker.has_ended() {
            return Vec::new();
        }
        vec![format!("worker process {}", self.worker.pid())]
    }
}
