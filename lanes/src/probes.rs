//! Probes: clients that have to be refused, and clients whose cursors cannot be resumed from. They run throughout a
//! trial, straight to the lane. An answer that was not had proves nothing and is counted apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use host::clock;
use model::anomaly::{Anomaly, Example, Findings};
use model::defect::Defect;
use model::ids::{Seq, StreamId};
use model::quantity::Span;
use model::shard::{ProbeTally, ProbesConfig};
use model::target::{Authorization, Promise};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::client::cursor::continuity;
use crate::client::machine::{Held, Refusal};
use crate::khala::error::StaleReason;
use crate::lane::Stale;
use crate::oneshot::{Answer, Asked};
use crate::store::Store;
use crate::token::{SCOPE_CHECKPOINT, SCOPE_SUBSCRIBE};
use crate::token_client::{TokenClient, Wish};

/// Tokens of probes that are not about expiry last so long, in seconds.
const TTL: u64 = 60;
/// A token is fetched anew when it has less left than this.
const LEFT: Span = Span::from_secs(5);
/// How long after its expiry a token is presented.
const WELL_EXPIRED: Span = Span::from_millis(100);
/// A cursor so far ahead is ahead of any head.
const FAR_AHEAD: Seq = 1_000_000_000;
/// Events that have to be in the stale stream beyond what a probe needs, because its head moves meanwhile.
const MARGIN: Seq = 3;
/// How much of a reason is kept as an answer's name.
const REASON_KEPT: usize = 80;

const AHEAD_OF_HEAD: &str = StaleReason::CursorAheadOfHead.name();
const BELOW_FLOOR: &str = StaleReason::RetentionFloorBreach.name();
const BEYOND_BUDGET: &str = StaleReason::ReplayBudgetExceeded.name();

/// What the probes of a shard work with.
#[derive(Debug)]
pub struct Setting {
    /// What they are told.
    pub config: ProbesConfig,
    /// The lane.
    pub asked: Asked,
    /// The stale stream's head.
    pub store: Store,
    /// Tokens.
    pub tokens: TokenClient,
    /// The clients' organisation.
    pub org: String,
    /// Retention and replay budget of the stale stream.
    pub budget: (u64, u64),
    /// What the lane promises, and so what has to be refused.
    pub promise: Promise,
    /// Whether the client's own detection is off, as planted.
    pub defect: Option<Defect>,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Probe {
    WrongScope,
    ForeignStream,
    UngrantedStream,
    RivalToken,
    ExpiredToken,
    AheadOfHead,
    BelowFloor,
    BeyondBudget,
}

impl Probe {
    const ALL: [Self; 8] = [
        Self::WrongScope,
        Self::ForeignStream,
        Self::UngrantedStream,
        Self::RivalToken,
        Self::ExpiredToken,
        Self::AheadOfHead,
        Self::BelowFloor,
        Self::BeyondBudget,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::WrongScope => "wrong-scope",
            Self::ForeignStream => "foreign-stream",
            Self::UngrantedStream => "ungranted-stream",
            Self::RivalToken => "rival-token",
            Self::ExpiredToken => "expired-token",
            Self::AheadOfHead => "cursor-ahead-of-head",
            Self::BelowFloor => "cursor-below-floor",
            Self::BeyondBudget => "cursor-beyond-budget",
        }
    }

    /// Whether the lane says that it refuses this. An expiry is waited for only where that takes no longer than a drill.
    fn is_promised(self, promise: &Promise) -> bool {
        match self {
            Self::WrongScope | Self::UngrantedStream | Self::RivalToken => {
                promise.authorization == Authorization::Enforced
            }
            Self::ExpiredToken => promise.token_skew <= LEFT,
            _ => true,
        }
    }

    /// The reasons of which one has to be given.
    const fn reasons(self) -> &'static [&'static str] {
        match self {
            Self::WrongScope => &["missing_scope"],
            Self::ForeignStream => &["forbidden", "403"],
            Self::UngrantedStream | Self::RivalToken => &["forbidden_topic", "forbidden_stream"],
            Self::ExpiredToken => &["token_expired", "ExpiredSignature"],
            Self::AheadOfHead => &[AHEAD_OF_HEAD],
            Self::BelowFloor => &[BELOW_FLOOR],
            Self::BeyondBudget => &[BEYOND_BUDGET],
        }
    }

    fn expected(self) -> String {
        let what = match self {
            Self::AheadOfHead | Self::BelowFloor | Self::BeyondBudget => "stale",
            _ => "refused",
        };
        format!("{what}: {}", self.reasons()[0])
    }
}

/// What a run of a probe showed.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// There is nothing to ask yet.
    NotYet,
    Unreachable(String),
    Met,
    /// Refused or stale for another reason.
    Otherwise(String),
    /// Not refused, or not noticed.
    Wrong(String),
}

/// The probes of a shard.
#[derive(Debug)]
pub struct Probes {
    setting: Setting,
    tokens: tokio::sync::Mutex<BTreeMap<Probe, Held>>,
    seen: Mutex<(BTreeMap<Probe, ProbeTally>, Findings)>,
}

impl Probes {
    /// Probes that have not run.
    #[must_use]
    pub fn new(setting: Setting) -> Arc<Self> {
        Arc::new(Self {
            setting,
            tokens: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// Runs them all, until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let every = self
            .setting
            .config
            .every
            .duration()
            .max(std::time::Duration::from_millis(50));
        let promised: Vec<Probe> = Probe::ALL
            .into_iter()
            .filter(|probe| probe.is_promised(&self.setting.promise))
            .collect();
        let count = u32::try_from(promised.len()).unwrap_or(1);
        let mut running = tokio::task::JoinSet::new();
        for (place, probe) in (0..).zip(promised) {
            let this = Arc::clone(&self);
            running.spawn(async move {
                // Each at its own time: together they would be a small storm of their own.
                let mut ticks = interval_at(Instant::now() + every * place / count, every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    let shown = this.once(probe).await;
                    this.note(probe, shown);
                }
            });
        }
        while running.join_next().await.is_some() {}
    }

    /// What they showed, and what was found.
    #[must_use]
    pub fn read(&self) -> (Vec<ProbeTally>, Findings) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.0.values().cloned().collect(), seen.1.clone())
    }

    /// Safety anomalies found.
    #[must_use]
    pub fn safety(&self) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        safety(&seen.1)
    }

    async fn once(&self, probe: Probe) -> Shown {
        let Setting { config, org, .. } = &self.setting;
        let (stale, rival) = (&config.stale_stream, &config.rival_stream);
        match probe {
            Probe::WrongScope => {
                let wish = wish(org, SCOPE_CHECKPOINT, stale, TTL);
                self.refusal(probe, &wish, stale).await
            }
            Probe::ForeignStream => match self
                .setting
                .tokens
                .fetch(&wish(org, SCOPE_SUBSCRIBE, rival, TTL))
                .await
            {
                Ok(_) => Shown::Wrong(format!("a token of {org} for {rival} was issued")),
                Err(refusal) if refusal.status == Some(403) => Shown::Met,
                Err(refusal) if away(&refusal) => Shown::Unreachable(refusal.reason),
                Err(refusal) => Shown::Otherwise(refusal.reason),
            },
            Probe::UngrantedStream => {
                let wish = wish(org, SCOPE_SUBSCRIBE, stale, TTL);
                self.refusal(probe, &wish, rival).await
            }
            Probe::RivalToken => {
                let wish = wish(&config.rival_org, SCOPE_SUBSCRIBE, rival, TTL);
                self.refusal(probe, &wish, stale).await
            }
            Probe::ExpiredToken => {
                let wish = wish(org, SCOPE_SUBSCRIBE, stale, 1);
                let token = match self.setting.tokens.fetch(&wish).await {
                    Ok(token) => token,
                    Err(refusal) => return Shown::Unreachable(refusal.reason),
                };
                let dead = token.exp + self.setting.promise.token_skew + WELL_EXPIRED;
                tokio::time::sleep(dead.since(clock::now()).duration()).await;
                let answer = self.setting.asked.resume(&token.jwt, &[(stale, 0)]).await;
                judge_refusal(probe, answer)
            }
            Probe::AheadOfHead | Probe::BelowFloor | Probe::BeyondBudget => {
                self.stale_cursor(probe, stale).await
            }
        }
    }

    /// A token that is fetched once and kept while it is good.
    async fn token(&self, probe: Probe, wish: &Wish) -> Result<String, Refusal> {
        let mut tokens = self.tokens.lock().await;
        if let Some(held) = tokens.get(&probe)
            && held.exp.since(clock::now()) > LEFT
        {
            return Ok(held.jwt.clone());
        }
        let held = self.setting.tokens.fetch(wish).await?;
        let jwt = held.jwt.clone();
        tokens.insert(probe, held);
        Ok(jwt)
    }

    async fn refusal(&self, probe: Probe, wish: &Wish, stream: &str) -> Shown {
        match self.token(probe, wish).await {
            Ok(jwt) => {
                let answer = self.setting.asked.resume(&jwt, &[(stream, 0)]).await;
                judge_refusal(probe, answer)
            }
            Err(refusal) => Shown::Unreachable(format!("no token: {}", refusal.reason)),
        }
    }

    async fn stale_cursor(&self, probe: Probe, stream: &StreamId) -> Shown {
        let setting = &self.setting;
        let head = match setting.store.head(stream).await {
            Ok((head, _)) => head,
            Err(why) => return Shown::Unreachable(why),
        };
        let (retention, budget) = setting.budget;
        let Some(cursor) = cursor_for(probe, head, retention, budget) else {
            return Shown::NotYet;
        };
        let wish = wish(&setting.org, SCOPE_SUBSCRIBE, stream, TTL);
        let jwt = match self.token(probe, &wish).await {
            Ok(jwt) => jwt,
            Err(refusal) => return Shown::Unreachable(format!("no token: {}", refusal.reason)),
        };
        let asked = format!("resumed {stream} after {cursor} with its head at {head}");
        match setting.asked.resume(&jwt, &[(stream, cursor)]).await {
            Answer::Unreachable(refusal) | Answer::Refused(refusal) => {
                Shown::Unreachable(refusal.reason)
            }
            Answer::Stale(stale) => fits(probe, reason_for(&stale, stream)),
            // A lane that has just died is silent too.
            Answer::Silent => match setting.store.head(stream).await {
                Ok(_) => Shown::Wrong(format!("{asked}: no answer")),
                Err(why) => Shown::Unreachable(why),
            },
            Answer::Replayed { rows, heads } => {
                let replayed = rows.len();
                let first = rows
                    .iter()
                    .filter(|row| row.stream == *stream)
                    .map(|row| row.seq)
                    .min();
                let named = heads
                    .iter()
                    .find(|(name, _)| name == stream)
                    .map_or(0, |(_, head)| *head);
                let unnoticed =
                    Shown::Wrong(format!("{asked}: {replayed} events and no word of it"));
                if setting.asked.kind.answers_stale
                    || setting.defect == Some(Defect::IgnoreStaleCursor)
                {
                    return unnoticed;
                }
                // A lane that keeps everything has no floor to be below.
                if probe == Probe::BelowFloor && first == Some(cursor + 1) {
                    return Shown::NotYet;
                }
                // Here to notice is the client's part: the same function that every client goes by.
                match continuity(cursor, named, first, budget) {
                    Some(reason) => fits(probe, reason.name()),
                    None => unnoticed,
                }
            }
        }
    }

    fn note(&self, probe: Probe, shown: Shown) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (tallies, findings) = &mut *seen;
        let tally = tallies.entry(probe).or_insert_with(|| ProbeTally {
            probe: probe.name().to_owned(),
            expected: probe.expected(),
            answers: BTreeMap::new(),
            met: 0,
            unreachable: 0,
        });
        let mut count = |answer: &str| {
            let answer: String = answer.chars().take(REASON_KEPT).collect();
            *tally.answers.entry(answer).or_default() += 1;
        };
        let found = match shown {
            Shown::NotYet => return,
            Shown::Unreachable(why) => {
                tracing::debug!(probe = probe.name(), why, "no answer");
                tally.unreachable += 1;
                return;
            }
            Shown::Met => {
                count(&probe.expected());
                tally.met += 1;
                return;
            }
            Shown::Otherwise(reason) => {
                count(&reason);
                (
                    Anomaly::WrongReason,
                    format!("expected {}, got: {reason}", probe.expected()),
                )
            }
            Shown::Wrong(what) => {
                let anomaly = match probe {
                    Probe::AheadOfHead | Probe::BelowFloor | Probe::BeyondBudget => {
                        Anomaly::StaleCursor
                    }
                    _ => Anomaly::UnauthorizedSuccess,
                };
                count(if anomaly == Anomaly::StaleCursor {
                    "unnoticed"
                } else {
                    "accepted"
                });
                (anomaly, what)
            }
        };
        tracing::info!(probe = probe.name(), anomaly = %found.0, detail = found.1, "a probe found something");
        findings.note(
            found.0,
            Example {
                client: None,
                stream: None,
                seq: None,
                detail: format!("probe {}: {}", probe.name(), found.1),
                at: Some(clock::now()),
            },
        );
    }
}

fn wish(org: &str, scope: &str, stream: &StreamId, ttl: u64) -> Wish {
    Wish {
        org: org.to_owned(),
        user: "probe".to_owned(),
        scopes: vec![scope.to_owned()],
        streams: vec![stream.clone()],
        ttl,
    }
}

fn judge_refusal(probe: Probe, answer: Answer) -> Shown {
    match answer {
        Answer::Unreachable(refusal) => Shown::Unreachable(refusal.reason),
        Answer::Silent => Shown::Unreachable("subscribed, then nothing".to_owned()),
        Answer::Refused(refusal) => fits(probe, &refusal.reason),
        Answer::Stale(_) => Shown::Wrong("the subscription was accepted".to_owned()),
        Answer::Replayed { rows, .. } => Shown::Wrong(format!(
            "the subscription was accepted, {} events were delivered",
            rows.len()
        )),
    }
}

/// Safety anomalies among the findings.
pub(crate) fn safety(findings: &Findings) -> u64 {
    findings
        .iter()
        .filter(|(anomaly, _)| anomaly.is_safety())
        .map(|(_, tally)| tally.count)
        .sum()
}

/// The lane or the service is busy or gone.
const fn away(refusal: &Refusal) -> bool {
    matches!(refusal.status, None | Some(429 | 500..))
}

fn fits(probe: Probe, reason: &str) -> Shown {
    if probe
        .reasons()
        .iter()
        .any(|expected| reason.contains(expected))
    {
        Shown::Met
    } else {
        Shown::Otherwise(reason.to_owned())
    }
}

fn reason_for<'a>(stale: &'a [Stale], stream: &str) -> &'a str {
    stale
        .iter()
        .find(|answer| answer.stream == stream)
        .map_or("stale, but not this stream", |answer| &answer.reason)
}

/// The cursor that a probe resumes from; `None` while the stream is too short for it.
fn cursor_for(probe: Probe, head: Seq, retention: u64, budget: u64) -> Option<Seq> {
    match probe {
        Probe::AheadOfHead => Some(head + FAR_AHEAD),
        // The oldest event kept has to be at least the third: after 1 it is then not the next.
        Probe::BelowFloor => (head > retention + MARGIN).then_some(1),
        Probe::BeyondBudget => {
            let lag = u64::midpoint(retention, budget);
            let room = lag > budget + MARGIN && lag + MARGIN < retention;
            head.checked_sub(lag).filter(|cursor| room && *cursor > 0)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_cursors_are_chosen_where_the_stream_is_long_enough_for_their_reason() {
        let (retention, budget) = (60, 20);
        for head in [0, 10, 63, 64, 500] {
            if let Some(cursor) = cursor_for(Probe::BelowFloor, head, retention, budget) {
                assert!(cursor < head - retention, "below the floor");
            }
            if let Some(cursor) = cursor_for(Probe::BeyondBudget, head, retention, budget) {
                assert!(head - cursor > budget && head - cursor < retention);
            }
        }
        assert_eq!(cursor_for(Probe::BelowFloor, 63, retention, budget), None);
        assert_eq!(
            cursor_for(Probe::BelowFloor, 64, retention, budget),
            Some(1)
        );
        assert_eq!(cursor_for(Probe::BeyondBudget, 40, retention, budget), None);
        assert_eq!(
            cursor_for(Probe::BeyondBudget, 41, retention, budget),
            Some(1)
        );
        assert_eq!(
            cursor_for(Probe::BeyondBudget, 41, 22, budget),
            None,
            "no room between the budgets"
        );
    }

    #[test]
    fn a_refusal_for_another_reason_is_told_from_the_right_one() {
        assert_eq!(fits(Probe::ExpiredToken, "token_expired"), Shown::Met);
        assert_eq!(
            fits(Probe::ExpiredToken, "invalid_signature"),
            Shown::Otherwise("invalid_signature".to_owned())
        );
    }
}
