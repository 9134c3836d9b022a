//! Numbers, texts and addresses at the front of bytes, and their opposite.

use super::FormatError;
use crate::cluster::Address;
use crate::resp::Output;
use bytes::Bytes;

/// The longest text, in bytes; longer ones are cut when they are written.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// Where payloads are taken from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    /// The frame's body.
    pub(super) body: &'a Bytes,
    /// The memory that a slice of it keeps alive, in bytes.
    pub(super) pinned_bytes: usize,
}

/// Reads from the front of a frame's body.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    owner: Option<Owner<'a>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8], owner: Option<Owner<'a>>) -> Self {
        Reader { rest: body, owner }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Body("a field is cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (head, rest) =
            self.rest.split_at_checked(length).ok_or(FormatError::Body("a length is beyond the end of the frame"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        let [byte] = self.take()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, FormatError> {
        Ok(u128::from_le_bytes(self.take()?))
    }

    pub(super) fn flag(&mut self) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError::Body("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str, FormatError> {
        let length = usize::from(self.u16()?);
        if length > TEXT_BYTES_MAX {
            return Err(FormatError::Body("a text is too long"));
        }
        let text = std::str::from_utf8(self.slice(length)?).map_err(|_| FormatError::Body("a text is not UTF-8"))?;
        // NB: texts end up in the log and in replies of one line.
        if text.chars().any(char::is_control) {
            return Err(FormatError::Body("a text has control characters"));
        }
        Ok(text)
    }

    pub(super) fn address(&mut self) -> Result<Address, FormatError> {
        let text = self.text()?;
        match text.parse::<Address>() {
            // One way to write an address: a frame that was read and is written again is the same frame.
            Ok(address) if address.to_string() == text => Ok(address),
            _ => Err(FormatError::Body("an address is malformed")),
        }
    }

    /// The next bytes as a payload of its own: a slice of the frame, or a copy where the slice would pin too much.
    pub(super) fn payload(&mut self, length: usize) -> Result<Bytes, FormatError> {
        let bytes = self.slice(length)?;
        Ok(match self.owner {
            Some(owner) if length.saturating_mul(super::PINNED_RATIO_MAX) >= owner.pinned_bytes => {
                owner.body.slice_ref(bytes)
            }
            _ => Bytes::copy_from_slice(bytes),
        })
    }

    /// Checks that nothing is left.
    pub(super) fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Body("bytes are left over")) }
    }
}

pub(super) fn put_u8(out: &mut Output, number: u8) {
    out.extend(&[number]);
}

pub(super) fn put_u32(out: &mut Output, number: u32) {
    out.extend(&number.to_le_bytes());
}

pub(super) fn put_u64s<const N: usize>(out: &mut Output, numbers: [u64; N]) {
    for number in numbers {
        out.extend(&number.to_le_bytes());
    }
}

pub(super) fn put_u128(out: &mut Output, number: u128) {
    out.extend(&number.to_le_bytes());
}

/// Writes a text in one line, cut to what a reader accepts.
pub(super) fn put_text(out: &mut Output, text: &str) {
    let mut clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.truncate(clean.floor_char_boundary(TEXT_BYTES_MAX));
    out.extend(&(clean.len() as u16).to_le_bytes());
    out.extend(clean.as_bytes());
}

pub(super) fn put_address(out: &mut Output, address: &Address) {
    put_text(out, &address.to_string());
}

/// Writes a payload: by reference if it is large enough to be worth a part of its own.
pub(super) fn put_payload(out: &mut Output, payload: &Bytes) {
    if payload.len() > super::COPIED_BYTES_MAX {
        out.splice_shared(payload);
    } else {
        out.extend(payload);
    }
}
