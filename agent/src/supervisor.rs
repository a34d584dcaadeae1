//! Children by name. Each is this program in one of the roles that [`Role`] knows: no command comes over a wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use host::http::{Client, Failure, StatusCode};
use model::role::{Ready, Role};
use tokio::net::TcpSocket;

use crate::api::ChildView;
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long a single child that is ended on demand may take before it is killed.
const END_WITHIN: Duration = Duration::from_secs(2);
const LONGEST_NAME: usize = 32;

/// The children of an agent.
#[derive(Debug)]
pub struct Supervisor {
    program: PathBuf,
    log_dir: PathBuf,
    /// The only `SpacetimeDB` server that may be run: none that a request could name.
    spacetimedb: Option<PathBuf>,
    children: Mutex<BTreeMap<String, Slot>>,
    ending: AtomicBool,
}

#[derive(Debug)]
enum Slot {
    /// The name is taken by a child that is about to be.
    Starting,
    Started(Child),
}

/// A child that was started, and may have ended.
#[derive(Debug, Clone)]
pub struct Child {
    /// Its configuration; a service that it offers has the address there that it had when it was first ready.
    pub role: Arc<Role>,
    /// Its process, the latest where it was restarted.
    pub process: Arc<Process>,
    /// Its control API.
    pub client: Client,
    /// How often it was started again.
    pub restarts: u32,
    /// Keeps the address of a child that was taken down from being given to somebody else's outgoing connection. It
    /// does not listen, so that connections are refused.
    reserved: Option<Arc<TcpSocket>>,
}

impl Supervisor {
    /// A supervisor of children that are `program`, and log to `log_dir`; `spacetimedb` is the server that a child may
    /// run.
    #[must_use]
    pub fn new(program: PathBuf, log_dir: PathBuf, spacetimedb: Option<PathBuf>) -> Self {
        Self {
            program,
            log_dir,
            spacetimedb,
            children: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// The program that children are.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Starts a child and waits until it is ready.
    ///
    /// # Errors
    /// 422 for a bad name, 409 for one that is taken, 503 when the agent is ending, 500 when the child does not become
    /// ready.
    pub async fn start(&self, name: &str, role: Role) -> Result<Ready, Failure> {
        check_name(name)?;
        {
            let mut children = self.lock();
            if children.contains_key(name) {
                return Err(Failure::new(
                    StatusCode::CONFLICT,
                    format!("there is a child `{name}`; end it first, or choose another name"),
                ));
            }
            children.insert(name.to_owned(), Slot::Starting);
        }
        match self.spawn(name, &role).await {
            Ok(process) => {
                let ready = process.ready().clone();
                let child = Child {
                    role: Arc::new(pinned(role, &ready)),
                    client: Client::new(ready.control),
                    process,
                    restarts: 0,
                    reserved: None,
                };
                self.lock().insert(name.to_owned(), Slot::Started(child));
                Ok(ready)
            }
            Err(failure) => {
                self.lock().remove(name);
                Err(failure)
            }
        }
    }

    /// Starts a child that has ended again, in the same role and on the address that it had.
    ///
    /// # Errors
    /// 404 when there is no such child (any more), 503 and 500 as [`Self::start`].
    pub async fn restart(&self, name: &str) -> Result<Arc<Process>, Failure> {
        let role = self.child(name)?.role;
        let process = self.spawn(name, &role).await?;
        let missing = {
            let mut children = self.lock();
            match children.get_mut(name) {
                Some(Slot::Started(child)) => {
                    child.client = Client::new(process.ready().control);
                    child.process = Arc::clone(&process);
                    child.restarts += 1;
                    child.reserved = None;
                    false
                }
                _ => true,
            }
        };
        if missing {
            process.end(END_WITHIN).await;
            return Err(unknown(name));
        }
        Ok(process)
    }

    /// Keeps the address of a child that has ended until it is started again. Without that the kernel could give its
    /// port to an outgoing connection, and the child could not come back.
    pub fn reserve(&self, name: &str) {
        let mut children = self.lock();
        if let Some(Slot::Started(child)) = children.get_mut(name)
            && let Some(addr) = service(&child.role)
        {
            match reserve(addr) {
                Ok(socket) => child.reserved = Some(Arc::new(socket)),
                Err(error) => tracing::debug!(child = name, %addr, %error, "not reserved"),
            }
        }
    }

    /// Ends a child and forgets it; what it had become before.
    ///
    /// # Errors
    /// 404 when there is no such child.
    pub async fn end(&self, name: &str) -> Result<(), Failure> {
        let child = self.child(name)?;
        child.process.end(END_WITHIN).await;
        self.lock().remove(name);
        Ok(())
    }

    /// Ends all children and starts no more.
    pub async fn end_all(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.end_by_kind().await;
    }

    /// Ends the children that there are and forgets them: their run is over.
    pub async fn clear(&self) {
        let were = self.matching(|_| true);
        self.end_by_kind().await;
        let mut children = self.lock();
        for (name, _) in were {
            children.remove(&name);
        }
    }

    /// Shards, then proxies, lanes, token services, so that nobody sees the one vanish that it talks to. Within a class they
    /// end at the same time.
    async fn end_by_kind(&self) {
        for (kind, grace_ms) in [
            ("shard", 800),
            ("proxy", 400),
            ("lane", 500),
            ("tokens", 300),
        ] {
            let of_kind = self.matching(|role| kind_of(role) == kind);
            let grace = Duration::from_millis(grace_ms);
            join_all(of_kind.iter().map(|(_, child)| child.process.end(grace))).await;
        }
    }

    /// A child by name.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn child(&self, name: &str) -> Result<Child, Failure> {
        match self.lock().get(name) {
            Some(Slot::Started(child)) => Ok(child.clone()),
            _ => Err(unknown(name)),
        }
    }

    /// The children whose role is as wanted, by name; ended ones too.
    pub fn matching(&self, wanted: impl Fn(&Role) -> bool) -> Vec<(String, Child)> {
        self.lock()
            .iter()
            .filter_map(|(name, slot)| match slot {
                Slot::Started(child) if wanted(&child.role) => Some((name.clone(), child.clone())),
                _ => None,
            })
            .collect()
    }

    /// All children.
    #[must_use]
    pub fn views(&self) -> Vec<ChildView> {
        self.matching(|_| true)
            .into_iter()
            .map(|(name, child)| {
                let exit = child.process.exit();
                let ready = child.process.ready();
                ChildView {
                    name,
                    role: kind_of(&child.role).to_owned(),
                    pid: child.process.pid(),
                    alive: exit.is_none(),
                    exit: exit.map(|exit| exit.to_string()),
                    end_expected: child.process.end_expected(),
                    restarts: child.restarts,
                    control: ready.control,
                    listen: ready.listen.clone(),
                }
            })
            .collect()
    }

    async fn spawn(&self, name: &str, role: &Role) -> Result<Arc<Process>, Failure> {
        let ending = || {
            Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("`{name}` was not started: the agent is ending"),
            )
        };
        if self.ending.load(Ordering::SeqCst) {
            return Err(ending());
        }
        let failed = |reason: String| {
            tracing::warn!(child = name, reason, "the child was not started");
            Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("child `{name}`: {reason}"),
            )
        };
        let log = self.log_dir.join(format!("{name}.log"));
        let (program, timeout) = (self.program.as_path(), READY_WITHIN);
        let spawned = match role {
            Role::Lane(config) => {
                let args = ["lane", config.lane.name()];
                host::child::spawn(program, &args, config, &log, timeout).await
            }
            Role::Spacetimedb(config) => {
                let server = self.spacetimedb.as_ref().ok_or_else(|| {
                    failed(
                        "this agent's configuration names no SpacetimeDB server to run".to_owned(),
                    )
                })?;
                let server = server.to_string_lossy();
                let args = ["spacetimedb", "--server", &*server];
                host::child::spawn(program, &args, config, &log, timeout).await
            }
            Role::Tokens(config) => {
                host::child::spawn(program, &["tokens"], config, &log, timeout).await
            }
            Role::Proxy(config) => {
                host::child::spawn(program, &["proxy"], config, &log, timeout).await
            }
            Role::Shard(config) => {
                host::child::spawn(program, &["shard"], config, &log, timeout).await
            }
        };
        let child = spawned.map_err(|error| failed(error.to_string()))?;
        let process = Process::adopt(name, child).map_err(|error| failed(error.to_string()))?;
        tracing::debug!(child = name, pid = process.pid(), "the child is ready");
        // The end of all children may have begun meanwhile, and would not know of this one.
        if self.ending.load(Ordering::SeqCst) {
            process.end(Duration::ZERO).await;
            return Err(ending());
        }
        Ok(process)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `lane` (whoever serves it), `tokens`, `proxy` or `shard`.
#[must_use]
pub const fn kind_of(role: &Role) -> &'static str {
    match role {
        Role::Lane(_) | Role::Spacetimedb(_) => "lane",
        Role::Tokens(_) => "tokens",
        Role::Proxy(_) => "proxy",
        Role::Shard(_) => "shard",
    }
}

/// The name is part of a path, of a file name and of messages.
fn check_name(name: &str) -> Result<(), Failure> {
    let fits = name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if fits {
        return Ok(());
    }
    Err(Failure::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        format!(
            "`{}` is no name for a child; use a letter and then letters, digits and -, at most {LONGEST_NAME} in all",
            name.escape_default()
        ),
    ))
}

fn unknown(name: &str) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no child `{name}`"))
}

/// The role with the address that was bound instead of port 0.
fn pinned(mut role: Role, ready: &Ready) -> Role {
    let wanted = match &mut role {
        Role::Lane(config) => &mut config.listen,
        Role::Spacetimedb(config) => &mut config.listen,
        Role::Tokens(config) => &mut config.listen,
        Role::Proxy(config) => &mut config.listen,
        Role::Shard(_) => return role,
    };
    if let Some(bound) = ready.listen.get("data") {
        *wanted = *bound;
    }
    role
}

fn service(role: &Role) -> Option<SocketAddr> {
    match role {
        Role::Lane(config) => Some(config.listen),
        Role::Spacetimedb(config) => Some(config.listen),
        Role::Tokens(config) => Some(config.listen),
        Role::Proxy(config) => Some(config.listen),
        Role::Shard(_) => None,
    }
}

fn reserve(addr: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // The child binds the same address while this is still open; it may, as both have this set and this never listens.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for good in ["lane", "shard-12", "a"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(33);
        for bad in ["", "-a", "1a", "../etc", "Lane", "a b", "lane\n", &long] {
            let failure = check_name(bad).unwrap_err();
            assert_eq!(failure.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_reserved_address_refuses_connections_and_can_be_taken_back() {
        let listener = host::net::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let _reserved = reserve(addr).unwrap();
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
        let back = host::net::listen(addr).unwrap();
        tokio::net::TcpStream::connect(addr).await.unwrap();
        drop(back);
    }
}
