//! `faultlane pki`: an authority and certificates, as files.

use agent::pki::{self, Holder, Wanted};

use super::print;
use crate::cli::operating::{PkiArgs, PkiCommand};
use crate::exit::{Error, Exit};

pub(super) fn pki(command: &PkiCommand) -> Result<Exit, Error> {
    let (args, make): (_, fn(&_, &[_], _) -> _) = match command {
        PkiCommand::Init(args) => (args, pki::init),
        PkiCommand::Add(args) => (args, pki::add),
    };
    let wanted = wanted(args);
    if wanted.is_empty() && matches!(command, PkiCommand::Add(_)) {
        let text =
            "no certificate is asked for: name an --agent, --conductor, --observer or --operator";
        return Err(Error::usage(text));
    }
    for path in make(&args.dir, &wanted, args.days).map_err(Error::usage)? {
        print(&format!("{}\n", path.display()));
    }
    Ok(Exit::Go)
}

fn wanted(args: &PkiArgs) -> Vec<Wanted> {
    let agents = args.agents.iter().map(|typed| {
        let (name, hosts) = typed.split_once('=').unwrap_or((typed, ""));
        Wanted {
            name: name.to_owned(),
            hosts: hosts
                .split(',')
                .filter(|host| !host.is_empty())
                .map(str::to_owned)
                .collect(),
            holder: Holder::Agent,
        }
    });
    let callers = [
        (&args.conductors, Holder::Conductor),
        (&args.observers, Holder::Observer),
        (&args.operators, Holder::Operator),
    ];
    let callers = callers.into_iter().flat_map(|(names, holder)| {
        names.iter().map(move |name| Wanted {
            name: name.clone(),
            hosts: Vec::new(),
            holder,
        })
    });
    agents.chain(callers).collect()
}
