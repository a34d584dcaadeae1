//! The Close frame that the proxy puts in.

/// A Close frame from server to client, so unmasked. `reason` is at most 123 bytes: with the code it fills the 125
/// bytes that a control frame may carry.
pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).expect("checked when the fault was ordered");
    let mut frame = vec![0x88, length];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}
