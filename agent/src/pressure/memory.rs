//! Memory that is taken up, page by page, for as long as enough stays available; and given back where others need it.

use std::io;
use std::thread;

use host::clock;
use model::fault::Amount;
use model::instant::Mono;
use model::quantity::{ByteSize, Span};

use super::{Report, figures, say};
use crate::memory::Memory;

/// Between two looks at what is available.
const CHUNK: u64 = 4 << 20;
const PAGE: usize = 4_096;
const SAY_EVERY: Span = Span::from_millis(50);
const LOOK_EVERY: Span = Span::from_millis(50);

/// Takes up memory and holds it until this process is ended.
pub(super) fn fill(size: Amount, reserve: ByteSize) -> io::Result<()> {
    let before = Memory::look()?;
    let mut holding = Holding {
        asked: size.of(before.available),
        reserve: before.reserve(reserve),
        available_before: before.available,
        chunks: Vec::new(),
    };
    let mut said = Mono(0);
    while let Some(next) = holding.next(Memory::look()?.available) {
        holding.take(next);
        if clock::now().since(said) > SAY_EVERY {
            say(&holding.report(false));
            said = clock::now();
        }
    }
    say(&holding.report(true));
    loop {
        thread::sleep(LOOK_EVERY.duration());
        let mut gave_back = false;
        while Memory::look()?.available < holding.reserve && holding.chunks.pop().is_some() {
            gave_back = true;
        }
        if gave_back {
            say(&holding.report(true));
        }
    }
}

struct Holding {
    asked: u64,
    reserve: u64,
    available_before: u64,
    chunks: Vec<Vec<u8>>,
}

impl Holding {
    fn held(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// How much to take next; `None` when all is taken, or no more may be.
    fn next(&self, available: u64) -> Option<usize> {
        let next = CHUNK.min(self.asked - self.held());
        let fits = available.saturating_sub(next) >= self.reserve;
        (next > 0 && fits).then(|| usize::try_from(next).unwrap_or(0))
    }

    /// A page is there once something is written to it, and none is like another, which some kernels would make one of.
    fn take(&mut self, bytes: usize) {
        let mut chunk = vec![0_u8; bytes];
        let first = self.held();
        for (page, at) in chunk.chunks_mut(PAGE).zip((first..).step_by(PAGE)) {
            let mark = (at | 1).to_le_bytes();
            let len = page.len().min(mark.len());
            page[..len].copy_from_slice(&mark[..len]);
        }
        self.chunks.push(chunk);
    }

    fn report(&self, done: bool) -> Report {
        let held = self.held();
        Report {
            done,
            figures: figures([
                ("bytes_asked", self.asked),
                ("bytes_held", held),
                ("bytes_reserved", self.reserve),
                ("bytes_available_before", self.available_before),
                ("stopped_short", u64::from(done && held < self.asked)),
            ]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is asked for, and however much others take meanwhile.
        #[test]
        fn the_reserve_is_never_touched(
            asked in 0_u64..64 << 20,
            reserve in 0_u64..64 << 20,
            available in prop::collection::vec(0_u64..128 << 20, 1..24),
        ) {
            let mut holding = Holding { asked, reserve, available_before: 0, chunks: Vec::new() };
            for now in available {
                match holding.next(now) {
                    Some(next) => {
                        prop_assert!(now - next as u64 >= reserve);
                        // Not touched: what matters here is how much it is.
                        holding.chunks.push(vec![0; next]);
                        prop_assert!(holding.held() <= asked);
                    }
                    None => prop_assert!(
                        holding.held() == asked || now < reserve + CHUNK.min(asked - holding.held())
                    ),
                }
            }
        }
    }
}
