//! Faults that children hold: the agent passes order, renewals and undo on, and makes one view of theirs. Each child
//! enforces a lease of its own, so that a child that cannot be reached undoes its part all the same.

use std::time::Duration;

use futures_util::future::join_all;
use host::clock;
use host::http::{CallError, Failure, Method, StatusCode};
use model::fault::{FaultOrder, FaultView, Holder, Renewal};
use model::instant::Bracket;
use model::role::Role;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::supervisor::Supervisor;

const RENEW_WITHIN: Duration = Duration::from_secs(1);

/// A fault and the children that hold it.
#[derive(Debug, Clone)]
pub struct Relay {
    children: Vec<String>,
}

/// What a child says to a call about a fault.
enum Answer<T> {
    Said(T),
    /// It ended, or does not know the fault: whatever it held is gone.
    Gone(String),
    Failed(Failure),
}

impl Relay {
    /// Finds the children that shall hold a fault: every proxy, every shard that has clients, or the token service.
    ///
    /// # Errors
    /// 409 when there is none, or one has ended: a fault that takes only a part of what it should is none.
    pub fn aim(order: &FaultOrder, supervisor: &Supervisor) -> Result<Self, Failure> {
        let holder = order.fault.holder();
        let wanted = |role: &Role| match (holder, role) {
            (Holder::Shard, Role::Shard(config)) => config.clients.is_some(),
            (Holder::Proxy, Role::Proxy(_)) | (Holder::Tokens, Role::Tokens(_)) => true,
            _ => false,
        };
        let conflict = |text| Err(Failure::new(StatusCode::CONFLICT, text));
        let mut children = Vec::new();
        for (name, child) in supervisor.matching(wanted) {
            if let Some(exit) = child.process.exit() {
                return conflict(format!(
                    "fault `{}` cannot be held by child `{name}`: it ended ({exit})",
                    order.id
                ));
            }
            children.push(name);
        }
        if children.is_empty() {
            let kind = match holder {
                Holder::Shard => "shard with clients",
                Holder::Tokens => "token service",
                Holder::Proxy | Holder::Agent => "proxy",
            };
            return conflict(format!(
                "fault `{}` ({}) needs a {kind}, and this agent has none; start one first",
                order.id,
                order.fault.name()
            ));
        }
        Ok(Self { children })
    }

    /// The children's names.
    #[must_use]
    pub fn children(&self) -> &[String] {
        &self.children
    }

    /// Has every child inject it, at the same time.
    ///
    /// # Errors
    /// A child's refusal, with its status. Others may have injected it: undo.
    pub async fn inject(
        &self,
        order: &FaultOrder,
        supervisor: &Supervisor,
        within: Duration,
    ) -> Result<FaultView, Failure> {
        let answers = self
            .ask(supervisor, &Method::POST, "/faults", order, within)
            .await;
        let views = answers
            .into_iter()
            .map(|(name, answer)| match answer {
                Answer::Said(view) => Ok(view),
                Answer::Failed(failure) => Err(failure),
                Answer::Gone(why) => Err(Failure::new(
                    StatusCode::BAD_GATEWAY,
                    format!("child `{name}`: {why}"),
                )),
            })
            .collect::<Result<Vec<FaultView>, Failure>>()?;
        merge(views).ok_or_else(|| {
            Failure::new(
                StatusCode::CONFLICT,
                format!("fault `{}` has no holder", order.id),
            )
        })
    }

    /// Looks at the fault at every child. Where one does not answer, `last` is what there is to say.
    pub async fn look(
        &self,
        last: &FaultView,
        supervisor: &Supervisor,
        within: Duration,
    ) -> FaultView {
        let path = format!("/faults/{}", last.id);
        let answers = self
            .ask::<FaultView>(supervisor, &Method::GET, &path, &(), within)
            .await;
        let views: Vec<_> = answers
            .into_iter()
            .filter_map(|(_, answer)| match answer {
                Answer::Said(view) => Some(view),
                Answer::Gone(_) | Answer::Failed(_) => None,
            })
            .collect();
        let complete = views.len() == self.children.len();
        match merge(views).filter(|_| complete) {
            Some(now) => FaultView {
                lapsed: now.lapsed || last.lapsed,
                ..now
            },
            None => last.clone(),
        }
    }

    /// Has every child undo it. A child that is gone has nothing to undo.
    ///
    /// # Errors
    /// A child did not answer, or could not undo it; the others have.
    pub async fn undo(
        &self,
        last: &FaultView,
        supervisor: &Supervisor,
        within: Duration,
    ) -> Result<FaultView, Failure> {
        let path = format!("/faults/{}", last.id);
        let asked = clock::now();
        let answers = self
            .ask::<FaultView>(supervisor, &Method::DELETE, &path, &(), within)
            .await;
        let mut views = Vec::new();
        let mut failures = Vec::new();
        for (name, answer) in answers {
            match answer {
                Answer::Said(view) => views.push(view),
                Answer::Gone(why) => {
                    tracing::warn!(fault = last.id, child = name, why, "nothing to undo there");
                }
                Answer::Failed(failure) => failures.push(failure),
            }
        }
        if let Some(mut first) = failures.pop() {
            for other in failures {
                first.message = format!("{first}; {other}");
            }
            return Err(first);
        }
        let complete = views.len() == self.children.len();
        let merged = merge(views);
        let healed = merged.as_ref().and_then(|view| view.healed);
        let mut view = merged.filter(|_| complete).unwrap_or_else(|| last.clone());
        view.healed = Some(healed.unwrap_or_else(|| Bracket {
            asked,
            observed: clock::now(),
        }));
        view.lapsed |= last.lapsed;
        Ok(view)
    }

    /// Passes a renewal on. A child that does not get it undoes its part when its own lease lapses, and its view says
    /// so.
    pub async fn renew(&self, id: &str, renewal: &Renewal, supervisor: &Supervisor) {
        let path = format!("/faults/{id}/renew");
        let answers = self
            .ask::<serde_json::Value>(supervisor, &Method::POST, &path, renewal, RENEW_WITHIN)
            .await;
        for (name, answer) in answers {
            match answer {
                Answer::Said(_) => {}
                Answer::Gone(why) => tracing::warn!(fault = id, child = name, why, "not renewed"),
                Answer::Failed(failure) => {
                    tracing::warn!(fault = id, child = name, %failure, "not renewed");
                }
            }
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        supervisor: &Supervisor,
        method: &Method,
        path: &str,
        body: &(impl Serialize + Sync),
        within: Duration,
    ) -> Vec<(&str, Answer<T>)> {
        join_all(self.children.iter().map(|name| async move {
            let answer = ask_one(name, supervisor, method.clone(), path, body, within).await;
            (name.as_str(), answer)
        }))
        .await
    }
}

async fn ask_one<T: DeserializeOwned>(
    name: &str,
    supervisor: &Supervisor,
    method: Method,
    path: &str,
    body: &impl Serialize,
    within: Duration,
) -> Answer<T> {
    let child = match supervisor.child(name) {
        Ok(child) => child,
        Err(failure) => return Answer::Gone(failure.message),
    };
    let ended = || {
        child
            .process
            .exit()
            .map(|exit| format!("it ended ({exit})"))
    };
    if let Some(why) = ended() {
        return Answer::Gone(why);
    }
    let error = match child.client.call(method.clone(), path, body, within).await {
        Ok(answer) => return Answer::Said(answer),
        Err(error) => error,
    };
    if let Some(why) = ended() {
        return Answer::Gone(why);
    }
    match error {
        CallError::Refused {
            status: StatusCode::NOT_FOUND,
            message,
            ..
        } if method != Method::POST => Answer::Gone(message),
        CallError::Refused {
            status, message, ..
        } => Answer::Failed(Failure::new(status, format!("child `{name}`: {message}"))),
        error => Answer::Failed(Failure::new(
            StatusCode::BAD_GATEWAY,
            format!("child `{name}`: {error}"),
        )),
    }
}

/// One view of several children's: begun when the first was asked and seen when the last was; over when all are.
pub(crate) fn merge(views: Vec<FaultView>) -> Option<FaultView> {
    let span = |a: Bracket, b: Bracket| Bracket {
        asked: a.asked.min(b.asked),
        observed: a.observed.max(b.observed),
    };
    views.into_iter().reduce(|mut sum, view| {
        sum.active |= view.active;
        sum.lapsed |= view.lapsed;
        sum.injected = span(sum.injected, view.injected);
        sum.healed = match (sum.healed, view.healed) {
            (Some(a), Some(b)) => Some(span(a, b)),
            _ => None,
        };
        sum.observation.merge(&view.observation);
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::Observation;
    use model::instant::Mono;

    fn view(asked: u64, observed: u64, healed: Option<(u64, u64)>, bitten: u64) -> FaultView {
        let bracket = |(asked, observed)| Bracket {
            asked: Mono(asked),
            observed: Mono(observed),
        };
        FaultView {
            id: "f".to_owned(),
            active: healed.is_none(),
            injected: bracket((asked, observed)),
            healed: healed.map(bracket),
            lapsed: false,
            observation: Observation {
                bitten,
                observed: Some(Mono(observed)),
                figures: [("held".to_owned(), bitten), ("expires_unix".to_owned(), 9)].into(),
            },
        }
    }

    #[test]
    fn views_become_one_that_spans_them() {
        let both = merge(vec![
            view(10, 20, Some((50, 60)), 3),
            view(12, 18, Some((49, 55)), 4),
        ]);
        let mut expected = view(10, 20, Some((49, 60)), 7);
        expected.observation.observed = Some(Mono(18));
        assert_eq!(both, Some(expected));
    }

    #[test]
    fn what_one_child_still_holds_is_not_over() {
        let half = merge(vec![view(1, 2, Some((5, 6)), 1), view(1, 2, None, 1)]).unwrap();
        assert!(half.active && half.healed.is_none());
        assert_eq!(merge(Vec::new()), None);
    }
}
