//! Whether the agent's kernel allows what a plan asks of it: told before anything is started.

use model::trial::Abort;
use scenarios::plan::Step;

use super::{Conductor, lost};
use crate::preflight::kernel::{Capability, Kernel};

impl Conductor<'_> {
    pub(super) async fn ask_the_kernel(&self) -> Result<(), Abort> {
        let steps = &self.setting.plan.steps;
        if !steps.iter().any(|step| step.fault.in_kernel()) {
            return Ok(());
        }
        let kernel = self.agent.preflight().await.map_err(lost("preflight"))?;
        impossible(&kernel, steps).map_or(Ok(()), |reason| Err(Abort::Harness(reason)))
    }
}

/// The first of the steps that this kernel does not allow, and why.
fn impossible(kernel: &Kernel, steps: &[Step]) -> Option<String> {
    steps.iter().find_map(|step| {
        let Capability { possible, reason } = kernel.needed_by(&step.fault)?;
        (!possible).then(|| {
            format!(
                "`{}` is not possible on the agent's machine: {reason}",
                step.id
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::fault::{DropSockets, Fault, Kill};
    use model::quantity::{Share, Span};

    fn step(id: &str, fault: Fault) -> Step {
        Step {
            id: id.to_owned(),
            at: Span::ZERO,
            lasts: Span::ZERO,
            fault,
            node: None,
            share: Share::ALL,
            lease: Span::from_secs(2),
        }
    }

    #[test]
    fn a_step_that_the_kernel_does_not_allow_is_named_and_others_need_nothing_of_it() {
        let kernel = Kernel::unknown("no luck");
        let kill = step("f1-kill", Fault::Kill(Kill {}));
        assert_eq!(impossible(&kernel, std::slice::from_ref(&kill)), None);
        let sockets = DropSockets {
            peers: Vec::new(),
            ports: Vec::new(),
        };
        let steps = [kill, step("f2-drop_sockets", Fault::DropSockets(sockets))];
        let told = impossible(&kernel, &steps).unwrap();
        assert!(
            told.contains("`f2-drop_sockets`") && told.contains("no luck"),
            "{told}"
        );
    }
}
