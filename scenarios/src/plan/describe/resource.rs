//! Faults of what a node's machine has to give, in words.

use model::fault::{Cores, Fault};
use model::quantity::{ByteSize, Share};

pub(super) fn action(fault: &Fault) -> String {
    match fault {
        Fault::CpuBurn(settings) => {
            let cores = match settings.cores {
                Cores::Count(1) => "1 core".to_owned(),
                Cores::Count(count) => format!("{count} cores"),
                Cores::Share(share) => format!("{share} of the cores"),
            };
            let load = if settings.load == Share::ALL {
                String::new()
            } else {
                format!(" for {} of the time", settings.load)
            };
            let pinned = if settings.pin {
                ", a worker on each"
            } else {
                ""
            };
            format!("keep {cores} busy{load}{pinned}")
        }
        Fault::MemoryFill(settings) => format!(
            "take up {} of memory{}",
            settings.size,
            reserve(settings.reserve)
        ),
        Fault::DiskFill(settings) => {
            let folder = settings.folder.as_ref().map_or_else(
                || "the folder of its data".to_owned(),
                |folder| format!("`{}`", folder.display()),
            );
            let (size, reserve) = (settings.size, reserve(settings.reserve));
            format!("take up {size} of the disk with a file in {folder}{reserve}")
        }
        other => other.name().to_owned(),
    }
}

fn reserve(size: ByteSize) -> String {
    if size == ByteSize::new(0) {
        return ", leaving the usual reserve".to_owned();
    }
    format!(", leaving {size} or the usual reserve, whichever is more")
}
