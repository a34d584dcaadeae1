//! The agent as a process: it opens its folder, heals what an earlier life left, serves until it shall end, and takes
//! everything down.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::door::Door;
use host::faults::Leased;
use host::{child, http, net};
use model::policy::Policy;
use model::role::AgentConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::api::Api;
use crate::audit::Audit;
use crate::commands::Commands;
use crate::crash;
use crate::faults::AgentHolder;
use crate::faults::network::Network;
use crate::gate::Gate;
use crate::journal::Journal;
use crate::nodes::Nodes;
use crate::preflight;
use crate::run_lock::RunLock;
use crate::state::StateDir;
use crate::supervisor::Supervisor;
use crate::tool;
use crate::watchdog::Watchdog;

/// How long the faults may take to be undone at the end, before the children that hold them are ended.
const UNDO_WITHIN: Duration = Duration::from_millis(500);
/// And afterwards, for what ends with nobody: what is changed in the kernel.
const UNDO_AT_LAST_WITHIN: Duration = Duration::from_secs(5);

/// Runs an agent until `shutdown`. What it leaves is its folder when it is halted, else nothing.
///
/// # Errors
/// Its folder cannot be opened or its journal not healed, or it cannot listen.
pub async fn main(config: AgentConfig, shutdown: CancellationToken) -> io::Result<()> {
    let agent = Service::open(config, std::env::current_exe()?)?;
    let listener = net::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    child::announce("agent", listener.local_addr()?, &[])?;
    agent.run(listener, shutdown).await;
    Ok(())
}

/// On what terms an agent serves. By default as a conductor's own child: on loopback, for as long as the trial.
#[derive(Debug, Default)]
pub struct Terms {
    /// How far it lets a drill go.
    pub policy: Policy,
    /// Where its audit log is; in its folder where nothing is said.
    pub audit: Option<PathBuf>,
    /// Whether callers have to show the token that is in its folder.
    pub by_token: bool,
    /// Whether its folder stays when it ends.
    pub keep: bool,
}

/// An agent that is ready to serve.
#[derive(Debug)]
pub struct Service {
    supervisor: Arc<Supervisor>,
    faults: Arc<Leased<AgentHolder>>,
    state: Arc<StateDir>,
    run: Arc<RunLock>,
    audit: Arc<Audit>,
    gate: Arc<Gate>,
    keep: bool,
}

impl Service {
    /// An agent on the usual terms: see [`Self::on_terms`].
    ///
    /// # Errors
    /// As [`Self::on_terms`].
    pub fn open(config: AgentConfig, program: PathBuf) -> io::Result<Self> {
        Self::on_terms(config, program, Terms::default())
    }

    /// Opens the agent's folder, has it watched, and undoes what an earlier life left in force. Its children will be
    /// `program`, told by their arguments what to be.
    ///
    /// # Errors
    /// A folder cannot be made, the watchdog cannot be started, a file of the folder cannot be read, or an undo failed.
    pub fn on_terms(config: AgentConfig, program: PathBuf, terms: Terms) -> io::Result<Self> {
        crash::arm()?;
        if let Err(error) = preflight::raise_descriptor_limit() {
            tracing::warn!(%error, "the limit of open descriptors could not be raised");
        }
        let state = Arc::new(StateDir::open(&config.state_dir)?);
        std::fs::create_dir_all(&config.log_dir).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{}: {error}", config.log_dir.display()),
            )
        })?;
        let nodes = Nodes::new(
            config.nodes,
            &config.commands,
            &config.log_dir,
            &state.turns(),
        )?;
        let mut journal = Journal::lock(&state.journal())?;
        tool::changes_hold(journal.held()?);
        // First: this agent too may be killed while it undoes what another left.
        let watchdog = Watchdog::start(program.clone(), state.journal())?;
        journal.replay()?;
        let supervisor = Arc::new(Supervisor::new(program, config.log_dir, config.spacetimedb));
        let network = Network::new(&config.name, &config.state_dir);
        let holder = AgentHolder::new(
            Arc::clone(&supervisor),
            nodes,
            network,
            Arc::clone(&state),
            journal,
            watchdog,
        );
        let faults = Leased::new(holder);
        let commands = Commands::new(config.commands, state.commands());
        let run = Arc::new(RunLock::open(state.run())?);
        let audit = Audit::open(&terms.audit.unwrap_or_else(|| state.audit()))?;
        let access = if terms.by_token {
            Access::by_token(&state.token())?
        } else {
            Access::default()
        };
        let api = Api::new(
            config.name,
            Arc::clone(&supervisor),
            Arc::clone(&faults),
            commands,
            Arc::clone(&run),
        );
        let gate = Gate::new(
            api,
            access,
            terms.policy,
            Arc::clone(&audit),
            Arc::clone(&run),
        );
        Ok(Self {
            supervisor,
            faults,
            state,
            run,
            audit,
            gate,
            keep: terms.keep,
        })
    }

    /// Serves whoever reaches the listener: see [`Self::run_at`].
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) {
        self.run_at(Door::Open(listener), shutdown).await;
    }

    /// Serves until `shutdown`; then undoes every fault, ends the children and, unless it is halted, removes the
    /// folder. A killed node is not started again for that: it is being taken down, and the journal says so. That takes
    /// some 50 ms, and at most 3 s with children that do not end; longer only where the kernel does not answer.
    pub async fn run_at(self, door: Door, shutdown: CancellationToken) {
        let ended = CancellationToken::new();
        if let Some(addr) = door.addr() {
            self.faults.holder().network().serves_on(addr);
        }
        let (gate, audit) = (Arc::clone(&self.gate), Arc::clone(&self.audit));
        let serving = tokio::spawn(http::serve_at(
            door,
            ended.clone(),
            http::REQUEST_LIMIT,
            move |request| Arc::clone(&gate).answer(request),
            move |stranger| audit.turned_away(&stranger),
        ));
        let clearing = tokio::spawn(clear_up(
            Arc::clone(&self.run),
            Arc::clone(&self.faults),
            Arc::clone(&self.supervisor),
        ));
        let mut enforcing = tokio::spawn(Arc::clone(&self.faults).enforce(ended.clone()));

        shutdown.cancelled().await;
        clearing.abort();
        // In this order: the undo of all faults, which the second begins, is guided by the first.
        self.faults.holder().begin_end();
        ended.cancel();
        if tokio::time::timeout(UNDO_WITHIN, &mut enforcing)
            .await
            .is_err()
        {
            tracing::warn!(
                "not all faults were undone within {UNDO_WITHIN:?}; they end with who holds them"
            );
            enforcing.abort();
        }
        self.supervisor.end_all().await;
        // With their holders gone, what these could not undo before is over; the kernel's faults have none but this agent.
        let _ = tokio::time::timeout(UNDO_AT_LAST_WITHIN, self.faults.undo_all()).await;
        serving.abort();
        self.leave();
    }

    fn leave(&self) {
        let left = self.faults.holder().in_force();
        if !left.is_empty() {
            tracing::error!(faults = ?left, "not undone; the journal is kept for the watchdog and the next start");
            return;
        }
        if self.keep {
            if let Err(error) = self.state.remove_data() {
                tracing::warn!(%error, "what children have left could not be removed");
            }
        } else if self.state.is_halted() {
            tracing::info!("halted: the folder is kept, so that the next start knows");
        } else if let Err(error) = self.state.remove() {
            tracing::warn!(%error, "the agent's folder could not be removed");
        }
        self.faults.holder().watchdog().dismiss();
    }
}

/// Whatever a run had here ends with its lease: its faults, and the children that were started for it.
async fn clear_up(
    run: Arc<RunLock>,
    faults: Arc<Leased<AgentHolder>>,
    supervisor: Arc<Supervisor>,
) {
    loop {
        let lapsed = run.lapse().await;
        tracing::warn!(run = lapsed, "its lease lapsed: what it has here is ended");
        faults.undo_all().await;
        supervisor.clear().await;
        run.cleared();
    }
}
