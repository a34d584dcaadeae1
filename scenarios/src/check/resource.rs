//! The settings of faults of a node's machine, and of a clock.

use std::path::Component;

use model::fault::{Amount, ClockSkew, Cores, CpuBurn, DiskFill, Fault};
use model::quantity::{ByteSize, Share, Span};
use model::target::TokenChecks;

use super::Checks;

/// Below it a worker is not seen to have computed before somebody's patience ends.
const LEAST_LOAD: f64 = 0.01;
/// A machine that is asked to leave more than this is not one that anybody has.
const MOST_RESERVE: ByteSize = ByteSize::new(1 << 40);
/// Less is no fault: the kernel's own lists of free pages hold more.
const LEAST_SIZE: ByteSize = ByteSize::new(1 << 20);
const LONGEST_OFFSET: Span = Span::from_secs(366 * 86_400);

pub(super) fn check(checks: &mut Checks<'_>, path: [&str; 2], fault: &Fault) {
    match fault {
        Fault::CpuBurn(settings) => cpu_burn(checks, path, settings),
        Fault::MemoryFill(settings) => {
            fill(checks, path, fault, settings.size, settings.reserve);
        }
        Fault::DiskFill(settings) => {
            fill(checks, path, fault, settings.size, settings.reserve);
            folder(checks, path, settings);
        }
        _ => {}
    }
}

fn cpu_burn(checks: &mut Checks<'_>, path: [&str; 2], settings: &CpuBurn) {
    let place = |key| [path[0], path[1], "fault", "cpu_burn", key];
    let none = match settings.cores {
        Cores::Count(count) => count == 0,
        Cores::Share(share) => share.as_ratio() <= 0.0,
    };
    if none {
        let message = format!("{} cores are none", settings.cores);
        checks.error(&place("cores"), message, "write 1, or a share such as 50%");
    }
    if settings.load.as_ratio() < LEAST_LOAD {
        let message = format!("a load of {} cannot be told from none", settings.load);
        let hint = format!(
            "it is {} to 100%; leave it out for all",
            Share::ratio(LEAST_LOAD)
        );
        checks.error(&place("load"), message, hint);
    }
}

fn fill(checks: &mut Checks<'_>, path: [&str; 2], fault: &Fault, size: Amount, reserve: ByteSize) {
    let place = |key| [path[0], path[1], "fault", fault.name(), key];
    let too_small = match size {
        Amount::Bytes(size) => size < LEAST_SIZE,
        Amount::Share(_) => size.is_none(),
    };
    if too_small {
        let message = format!("a size of {size} is too small to be felt");
        let hint = format!("write {LEAST_SIZE} or more, or a share of what there is, such as 50%");
        checks.error(&place("size"), message, hint);
    }
    if reserve > MOST_RESERVE {
        let message = format!("a reserve of {reserve} is more than machines have");
        checks.error(&place("reserve"), message, "was another unit meant?");
    }
}

fn folder(checks: &mut Checks<'_>, path: [&str; 2], settings: &DiskFill) {
    let Some(folder) = &settings.folder else {
        return;
    };
    let place = [path[0], path[1], "fault", "disk_fill", "folder"];
    let shown = folder.display();
    let plain = folder
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !folder.is_absolute() || !plain {
        let hint = "write the folder's whole path without `..`, such as /srv/data; the agent's policy has to name it or \
                    one above it under `disk_folders`";
        checks.error(&place, format!("`{shown}` is not an absolute path"), hint);
    } else if checks.target.is_none() {
        let message = format!("the embedded target's agent may not fill `{shown}`");
        let hint = "leave `folder` out: the file is then put where the node's data lie";
        checks.error(&place, message, hint);
    }
}

/// What lanes overlook is no fault: their own clocks are no better.
pub(super) fn clock_skew(checks: &mut Checks<'_>, path: [&str; 2], settings: &ClockSkew) {
    let place = [path[0], path[1], "fault", "clock_skew", "offset"];
    let by = settings.offset.by();
    if by <= TokenChecks::NBF_SKEW {
        let message = format!(
            "an offset of {} is one that lanes overlook",
            settings.offset
        );
        let hint = format!("make it more than {}, such as +1h", TokenChecks::NBF_SKEW);
        checks.error(&place, message, hint);
    } else if by > LONGEST_OFFSET {
        let message = format!("an offset of {} is longer than a year", settings.offset);
        checks.error(&place, message, "was another unit meant?");
    }
}
