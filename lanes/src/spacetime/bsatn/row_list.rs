//! Many rows as one value: a hint of where each begins, and all of them in one piece.

use super::{Bsatn, BsatnError, Reader, write_bytes, write_length};
use crate::spacetime::message::Encoded;

/// Every row takes so many bytes.
const FIXED_SIZE: u8 = 0;
/// Where each row begins; the next one, or the list, ends it.
const ROW_OFFSETS: u8 = 1;
const OFFSET_BYTES: u64 = 8;

/// Writes rows by their offsets, as the server does for tables of which a row may have any size.
pub(super) fn write(rows: &[Encoded], out: &mut Vec<u8>) {
    out.push(ROW_OFFSETS);
    write_length(rows.len(), out);
    let mut offset = 0_u64;
    for row in rows {
        offset.write(out);
        offset += row.as_bytes().len() as u64;
    }
    let data: Vec<u8> = rows.iter().flat_map(Encoded::as_bytes).copied().collect();
    write_bytes(&data, out);
}

/// Reads rows.
pub(super) fn read(from: &mut Reader<'_>) -> Result<Vec<Encoded>, BsatnError> {
    let row = |bytes: &[u8]| Encoded::Binary(bytes.to_vec());
    match u8::read(from)? {
        FIXED_SIZE => {
            let size = usize::from(u16::read(from)?);
            let data = from.bytes()?;
            if data.is_empty() {
                return Ok(Vec::new());
            }
            if size == 0 || !data.len().is_multiple_of(size) {
                return Err(BsatnError::Rows(data.len()));
            }
            Ok(data.chunks_exact(size).map(row).collect())
        }
        ROW_OFFSETS => {
            let count = from.count(OFFSET_BYTES)?;
            let offsets = from.take(u64::from(count) * OFFSET_BYTES)?;
            let data = from.bytes()?;
            let ill = BsatnError::Rows(data.len());
            let mut offsets = Reader::new(offsets);
            let mut rows = Vec::new();
            let mut start = None;
            for _ in 0..count {
                let next = usize::try_from(u64::read(&mut offsets)?).map_err(|_| ill.clone())?;
                match start.replace(next) {
                    Some(start) => rows.push(row(data.get(start..next).ok_or(ill.clone())?)),
                    None if next == 0 => {}
                    None => return Err(ill),
                }
            }
            match start {
                Some(start) => rows.push(row(data.get(start..).ok_or(ill)?)),
                None if data.is_empty() => {}
                None => return Err(ill),
            }
            Ok(rows)
        }
        tag => Err(BsatnError::Tag {
            what: "RowSizeHint",
            tag,
        }),
    }
}
