//! Targets as they are named on the command line.

use std::path::Path;
use std::sync::Arc;

use model::ids::Lane;
use model::target::Kind;
use scenarios::Source;
use scenarios::target::{self, Surroundings, Target};

use crate::cli::PlanArgs;
use crate::exit::Error;

/// What is drilled.
#[derive(Debug, Clone)]
pub(super) enum Chosen {
    /// One that the drill starts.
    Builtin(Kind),
    /// What a file describes, and the file.
    Described(Arc<Target>, Source),
}

impl Chosen {
    /// The target of that name, or of the file of that name.
    pub(super) fn named(name: &str) -> Result<Self, Error> {
        if let Ok(kind) = name.parse::<Kind>() {
            return Ok(Self::Builtin(kind));
        }
        let path = Path::new(name);
        let looks_like_a_file = path.extension().is_some() || name.contains('/') || path.exists();
        if !looks_like_a_file {
            return Err(Error::usage(format!(
                "--target {name}: the targets are embedded and spacetimedb; for one of your own, name its target file"
            )));
        }
        let source = Source::read(path).map_err(Error::usage)?;
        Ok(Self::Described(Arc::new(check(&source)?), source))
    }

    /// As results name it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Builtin(kind) => kind.name(),
            Self::Described(target, _) => &target.name,
        }
    }

    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Builtin(kind) => *kind,
            Self::Described(..) => Kind::Described,
        }
    }

    /// What its file describes.
    pub(super) const fn described(&self) -> Option<&Arc<Target>> {
        match self {
            Self::Builtin(_) => None,
            Self::Described(target, _) => Some(target),
        }
    }

    /// What a scenario is checked against as it is written: with settings laid over, it is the plan that meets the target.
    pub(super) fn met_by(&self, args: &PlanArgs) -> Option<&Target> {
        let plain = args.set.is_empty() && args.clients.is_none();
        self.described().filter(|_| plain).map(Arc::as_ref)
    }

    /// The lanes that it has.
    pub(super) fn lanes(&self) -> Vec<Lane> {
        match self {
            Self::Builtin(kind) => kind.lanes().to_vec(),
            Self::Described(target, _) => target.lanes.keys().copied().collect(),
        }
    }
}

/// Reads and checks a target file, with the files and environment variables that it names. Warnings go to stderr.
pub(super) fn load(path: &Path) -> Result<Target, Error> {
    check(&Source::read(path).map_err(Error::usage)?)
}

/// As [`load`], for a text that was read already.
pub(super) fn check(source: &Source) -> Result<Target, Error> {
    let checked = target::parse(source, &Surroundings::of(source)).map_err(Error::usage)?;
    probes_are_known(source, &checked.target)?;
    for warning in &checked.warnings {
        eprintln!("{warning}");
    }
    Ok(checked.target)
}

/// The language does not know what the probes are called; who runs them does.
fn probes_are_known(source: &Source, target: &Target) -> Result<(), Error> {
    let names: Vec<String> = lanes::probes::names().collect();
    let unknown = target
        .probes
        .expect
        .keys()
        .find(|name| !names.contains(name));
    let Some(name) = unknown else { return Ok(()) };
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    Err(Error::usage(target::blame(
        source,
        &["probes", "expect", name],
        format!("there is no probe `{name}`"),
        format!(
            "{}; docs/probes.md lists them",
            scenarios::nearest(name, &known)
        ),
    )))
}
