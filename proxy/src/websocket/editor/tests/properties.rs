//! What holds for all bytes, all ways to cut them, and all moments at which toxics come and go.

use super::*;

/// Legal messages, each of which is told by its payload, fragments and control frames between them included.
fn conversation() -> impl Strategy<Value = Vec<Vec<Frame>>> {
    let message = (
        prop_oneof![Just(TEXT), Just(BINARY), Just(PING)],
        prop::collection::vec(
            prop_oneof![9 => 0..20_usize, 3 => 120..130_usize, 1 => 65_530..65_540_usize],
            1..4,
        ),
        any::<bool>(),
        any::<Option<[u8; 4]>>(),
        any::<bool>(),
    );
    prop::collection::vec(message, 0..12).prop_map(|messages| {
        let numbered = messages.into_iter().zip(0_u8..);
        numbered
            .map(|((opcode, lengths, has_ping, mask, is_long), number)| {
                let lengths = if opcode == PING {
                    vec![lengths[0] % 125]
                } else {
                    lengths
                };
                let last = lengths.len() - 1;
                let mut frames = Vec::new();
                for (at, length) in lengths.into_iter().enumerate() {
                    let code = if at == 0 { opcode } else { CONTINUATION };
                    let mut frame = Frame::new(code, &vec![number; length + 1], mask);
                    frame.header_mut().fin = at == last;
                    if is_long {
                        frame.lengthen_header();
                    }
                    frames.push(frame);
                    if has_ping && at != last {
                        frames.push(Frame::new(PING, &[number, 0], mask));
                    }
                }
                frames
            })
            .collect()
    })
}

fn bytes(conversation: &[Vec<Frame>]) -> Vec<u8> {
    conversation
        .iter()
        .flatten()
        .flat_map(Frame::bytes)
        .collect()
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..8_usize, 1..5_000_usize], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_no_toxic_takes_passes_byte_for_byte(conversation in conversation(), sizes in sizes()) {
        let bytes = bytes(&conversation);
        for toxic in idle() {
            prop_assert!(edit(Way::Upstream, std::slice::from_ref(&toxic), &bytes, &sizes) == (bytes.clone(), None));
        }
        prop_assert!(edit(Way::Upstream, &idle(), &bytes, &sizes) == (bytes, None));
    }

    #[test]
    fn any_bytes_pass_toxics_that_take_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
        sizes in sizes(),
    ) {
        prop_assert!(edit(Way::Downstream, &idle(), &bytes, &sizes) == (bytes, None));
    }

    #[test]
    fn any_bytes_come_to_an_end_in_all_toxics(bytes in prop::collection::vec(any::<u8>(), 0..2_000), sizes in sizes()) {
        for toxic in busy() {
            edit(Way::Upstream, std::slice::from_ref(&toxic), &bytes, &sizes);
        }
        edit(Way::Upstream, &busy(), &bytes, &sizes);
    }

    #[test]
    fn any_chunking_gives_the_same(conversation in conversation(), sizes in sizes()) {
        let bytes = bytes(&conversation);
        for toxic in busy() {
            let toxic = std::slice::from_ref(&toxic);
            let whole = edit(Way::Upstream, toxic, &bytes, &[usize::MAX]);
            prop_assert!(edit(Way::Upstream, toxic, &bytes, &sizes) == whole, "{toxic:?}");
        }
        let whole = edit(Way::Upstream, &busy(), &bytes, &[usize::MAX]);
        prop_assert!(edit(Way::Upstream, &busy(), &bytes, &sizes) == whole);
    }

    #[test]
    fn toxics_that_take_nothing_come_and_go_at_any_byte(
        conversation in conversation(),
        sizes in sizes(),
        toggles in prop::collection::vec(prop::collection::vec(0..8_usize, 0..3), 1..8),
    ) {
        let bytes = bytes(&conversation);
        let mut rig = Rig::new(Way::Downstream);
        let (mut toggles, idle, mut came) = (toggles.iter().cycle(), idle(), 0);
        for piece in pieces(&bytes, &sizes) {
            let which = toggles.next().unwrap().iter();
            let toxics: Vec<_> = which.map(|at| idle[*at].clone()).collect();
            rig.set(&toxics);
            prop_assert!(!toxics.is_empty() || rig.out == bytes[..came], "nothing is kept once they are gone");
            rig.push(piece);
            came += piece.len();
        }
        rig.set(&[]);
        prop_assert!(rig.out == bytes);
    }

    #[test]
    fn whatever_comes_and_goes_messages_are_whole_or_gone(
        conversation in conversation(),
        sizes in sizes(),
        toggles in prop::collection::vec(0..4_usize, 1..8),
    ) {
        let bytes = bytes(&conversation);
        let mut rig = Rig::new(Way::Downstream);
        let mut toggles = toggles.iter().cycle();
        let (drop, late) = (("ws_drop", json!({"match": {"share": 0.5}})), ("ws_reorder", json!({"window": 2})));
        let mut dropping = false;
        for piece in pieces(&bytes, &sizes) {
            match toggles.next().unwrap() {
                0 => rig.set(&[]),
                1 => rig.set(std::slice::from_ref(&late)),
                2 => rig.set(&[("ws_duplicate", json!({"match": {"nth": 0x0fff_ffff}})), late.clone()]),
                _ => {
                    dropping = true;
                    rig.set(std::slice::from_ref(&drop));
                }
            }
            rig.push(piece);
        }
        rig.finish();
        // Messages as they can be told: by their first byte, with all of their fragments in order.
        let told = |bytes: &[u8]| {
            let mut messages: Vec<(u8, u8, Vec<usize>)> = Vec::new();
            let mut open = None;
            for frame in read(bytes) {
                let number = frame.payload.first().copied().unwrap_or(0);
                if frame.header.opcode == CONTINUATION {
                    let at: usize = open.expect("something to continue");
                    messages[at].2.push(frame.payload.len());
                } else {
                    messages.push((frame.header.opcode, number, vec![frame.payload.len()]));
                }
                if !frame.header.is_control() {
                    open = (!frame.header.fin).then_some(open.unwrap_or(messages.len() - 1));
                }
            }
            assert!(open.is_none(), "the last message is whole");
            messages.sort();
            messages
        };
        let (came, went) = (told(&bytes), told(&rig.out));
        if dropping {
            prop_assert!(went.iter().all(|message| came.contains(message)));
        } else {
            prop_assert_eq!(went, came);
        }
    }
}
