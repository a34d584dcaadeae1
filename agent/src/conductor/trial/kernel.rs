//! Whether an agent's kernel and machine allow what a plan asks of them: told before anything is started.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use model::trial::Abort;
use scenarios::plan::{Plan, Step};

use crate::client::Agent;
use crate::conductor::hosts::Hosts;
use crate::preflight::kernel::{Capability, Kernel};

/// Asks each agent that a fault in the kernel or of the machine is done by.
pub(super) async fn ask_the_kernels(plan: &Plan, hosts: &Hosts) -> Result<(), Abort> {
    let mut by_agent: BTreeMap<Option<String>, (Agent, Vec<&Step>)> = BTreeMap::new();
    let asked_about = |step: &&Step| step.fault.in_kernel() || step.fault.on_machine();
    for step in plan.steps.iter().filter(asked_about) {
        for aim in hosts.aims(plan, step).map_err(Abort::Harness)? {
            let asked = by_agent.entry(aim.node).or_insert((aim.agent, Vec::new()));
            asked.1.push(step);
        }
    }
    let asking = by_agent.iter().map(|(node, (agent, steps))| async move {
        let whose = node
            .as_ref()
            .map_or_else(String::new, |node| format!(" of `{node}`"));
        let kernel = agent.preflight().await;
        let kernel =
            kernel.map_err(|error| Abort::Harness(format!("preflight{whose}: {error}")))?;
        impossible(&kernel, steps, &whose).map_or(Ok(()), |reason| Err(Abort::Harness(reason)))
    });
    try_join_all(asking).await.map(drop)
}

/// The first of the steps that this kernel does not allow, and why.
fn impossible(kernel: &Kernel, steps: &[&Step], whose: &str) -> Option<String> {
    steps.iter().find_map(|step| {
        let Capability { possible, reason } = kernel.needed_by(&step.fault)?;
        (!possible).then(|| {
            format!(
                "`{}` is not possible on the agent's machine{whose}: {reason}",
                step.id
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{Amount, DropSockets, Fault, Kill, MemoryFill};
    use model::quantity::{ByteSize, Share, Span};

    fn step(id: &str, fault: Fault) -> Step {
        Step {
            id: id.to_owned(),
            at: Span::ZERO,
            lasts: Span::ZERO,
            fault,
            node: None,
            nodes: Vec::new(),
            share: Share::ALL,
            lease: Span::from_secs(2),
        }
    }

    #[test]
    fn a_step_that_the_kernel_does_not_allow_is_named_and_others_need_nothing_of_it() {
        let kernel = Kernel::unknown("no luck");
        let kill = step("f1-kill", Fault::Kill(Kill {}));
        assert_eq!(impossible(&kernel, &[&kill], ""), None);
        let sockets = DropSockets {
            peers: Vec::new(),
            ports: Vec::new(),
        };
        let sockets = step("f2-drop_sockets", Fault::DropSockets(sockets));
        let told = impossible(&kernel, &[&kill, &sockets], " of `n2`").unwrap();
        assert!(
            told.contains("`f2-drop_sockets`") && told.contains("`n2`") && told.contains("no luck"),
            "{told}"
        );
        let without = Kernel {
            memory: Capability {
                possible: false,
                reason: "nothing is left".to_owned(),
            },
            ..kernel
        };
        let fill = MemoryFill {
            size: Amount::Bytes(ByteSize::new(1 << 20)),
            reserve: ByteSize::new(0),
        };
        let fill = step("f3-memory_fill", Fault::MemoryFill(fill));
        let told = impossible(&without, &[&kill, &fill], "").unwrap();
        assert!(
            told.contains("`f3-memory_fill`") && told.ends_with("nothing is left"),
            "{told}"
        );
    }
}
