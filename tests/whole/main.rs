//! The whole binary, over real sockets and processes.
//!
//! ```text
//! support         running faultlane, reading evidence
//! command_line    usage, exit codes, plans
//! bad_scenarios   what is refused, and how it is said
//! real_server     the drill against a real SpacetimeDB server
//! targets         target files: written, checked, scenarios against them
//! own_service     somebody's own service: its target file's mistakes, the page that leads there, drills
//! drills          the four scenarios on both lanes, and that their faults are real
//! verdicts        planted defects and impossible bounds: the verdict can fail
//! machine         faults of the machine and of a clock
//! external_probes what a scenario asks beside the lane
//! waivers         what somebody answers for is no failure, and its file is checked
//! lag             a harness that was held up itself
//! crashes         SIGKILL of the conductor and of the agent, Ctrl-C
//! cluster         five hosts with an agent each: drills across them, faults in their kernels, the lever
//! netns           those hosts: network namespaces
//! processes       the processes by themselves, and the guard
//! standalone      the proxy with Toxiproxy's API, and the commands that speak to it
//! workers         that proxy with several processes
//! ```

mod agents;
mod bad_scenarios;
mod bench;
mod cluster;
mod command_line;
mod crashes;
mod drills;
mod external_probes;
mod lag;
mod machine;
#[path = "../../agent/tests/agent/netns.rs"]
#[expect(dead_code, reason = "the agent's own tests need more of it")]
mod netns;
mod own_service;
mod processes;
mod real_server;
#[path = "../service/start.rs"]
mod service;
mod standalone;
mod support;
mod targets;
mod verdicts;
mod waivers;
mod workers;
