//! BSATN, the encoding of `v1.bsatn.spacetimedb`: integers are little-endian, texts and arrays a `u32` length and their
//! items, a sum is a `u8` tag and its value, a product its fields one after the other. Nothing says of what type it is.
//!
//! What arrives is not trusted: a length is compared with what is left before anything is taken or allocated, and a
//! message has to end where its last field does.
//!
//! ```text
//! messages   the messages, field by field       row_list   many rows as one value
//! ```

mod messages;
mod row_list;
#[cfg(test)]
mod tests;

/// Why bytes are not what they are taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BsatnError {
    /// They end too early.
    #[error("{wanted} bytes are wanted where {left} are left")]
    Short {
        /// By the value being read.
        wanted: u64,
        /// To the end.
        left: usize,
    },
    /// They go on.
    #[error("{0} bytes are left over")]
    Long(usize),
    /// A sum has no such variant.
    #[error("{what} has no variant {tag}")]
    Tag {
        /// The sum.
        what: &'static str,
        /// Its tag.
        tag: u8,
    },
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// Rows do not fill their list.
    #[error("the rows of a list do not fill its {0} bytes")]
    Rows(usize),
    /// The server compresses what was asked for uncompressed.
    #[error("compressed with {0}, although `compression=None` was asked for")]
    Compressed(&'static str),
}

/// Bytes being read.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, count: u64) -> Result<&'a [u8], BsatnError> {
        let short = BsatnError::Short {
            wanted: count,
            left: self.left.len(),
        };
        let split = usize::try_from(count)
            .ok()
            .and_then(|count| self.left.split_at_checked(count));
        let (taken, left) = split.ok_or(short)?;
        self.left = left;
        Ok(taken)
    }

    /// Takes bytes by their number.
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BsatnError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// The length of an array of items that take at least `least` bytes each.
    fn count(&mut self, least: u64) -> Result<u32, BsatnError> {
        let count = u32::read(self)?;
        let wanted = u64::from(count) * least;
        if wanted > self.left.len() as u64 {
            let left = self.left.len();
            return Err(BsatnError::Short { wanted, left });
        }
        Ok(count)
    }

    /// Bytes behind their length.
    ///
    /// # Errors
    /// They end too early.
    pub fn bytes(&mut self) -> Result<&'a [u8], BsatnError> {
        let count = u32::read(self)?;
        self.take(u64::from(count))
    }

    /// A text behind its length.
    ///
    /// # Errors
    /// It ends too early or is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, BsatnError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| BsatnError::Text)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Something is.
    pub fn end(self) -> Result<(), BsatnError> {
        match self.left.len() {
            0 => Ok(()),
            more => Err(BsatnError::Long(more)),
        }
    }
}

/// A type with a BSATN form.
pub trait Bsatn: Sized {
    /// Adds it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are not one.
    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError>;
}

macro_rules! integers {
    ($($kind:ty),*) => {$(
        impl Bsatn for $kind {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
                Ok(Self::from_le_bytes(from.array()?))
            }
        }
    )*};
}

integers!(u8, u16, u32, u64, u128);

impl Bsatn for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        match u8::read(from)? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(BsatnError::Tag { what: "bool", tag }),
        }
    }
}

impl Bsatn for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        from.text().map(str::to_owned)
    }
}

impl<T: Bsatn> Bsatn for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for item in self {
            item.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, BsatnError> {
        // No item is empty, so the number of bytes left bounds theirs. They are not made room for in advance: an item
        // may be far larger here than on the wire.
        (0..from.count(1)?).map(|_| T::read(from)).collect()
    }
}

/// A length. A message of 4 GiB is beyond what any WebSocket here takes, so that it fits.
fn write_length(length: usize, out: &mut Vec<u8>) {
    u32::try_from(length)
        .expect("messages are far below 4 GiB")
        .write(out);
}

/// Bytes behind their length.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}
