//! Rows that were brought from shards, on their way to a finishing query.

use crate::wire::Cursor;

/// The rows of a partial, as the columns that the finishing query gets: text arrays.
#[derive(Debug, Default)]
pub(super) struct PartialRows {
    /// The shards' description of them.
    pub description: Vec<u8>,
    /// For each column, the elements as an array in binary format has them.
    pub columns: Vec<Vec<u8>>,
    /// How many rows.
    pub count: u32,
}

/// The type `text[]`.
pub(super) const TEXT_ARRAY: u32 = 1009;
/// The type `text`.
pub(super) const TEXT: u32 = 25;

impl PartialRows {
    pub(super) fn add(&mut self, body: &[u8]) {
        let mut cursor = Cursor::new(body);
        let count = cursor.int16().unwrap_or_default() as u16 as usize;
        if self.columns.len() < count {
            self.columns.resize_with(count, Vec::new);
        }
        self.count += 1;
        for column in self.columns.iter_mut().take(count) {
            let length = cursor.int32().unwrap_or(-1);
            column.extend_from_slice(&length.to_be_bytes());
            if let Ok(length) = usize::try_from(length) {
                column.extend_from_slice(cursor.bytes(length).unwrap_or_default());
            }
        }
    }

    /// The columns as arrays in binary format; without columns one array with an element for each row.
    pub(super) fn arrays(&self) -> Vec<Vec<u8>> {
        let described = described_types(&self.description).len();
        let nulls = vec![0xff; 4 * self.count as usize];
        let columns: Vec<&[u8]> = match described {
            0 => vec![nulls.as_slice()],
            _ => (0..described).map(|place| self.columns.get(place).map_or(&[][..], Vec::as_slice)).collect(),
        };
        columns.iter().map(|elements| array(elements, self.count)).collect()
    }

    /// The values of one row after the other.
    pub(super) fn rows(&self) -> Vec<Vec<Option<Vec<u8>>>> {
        let mut cursors: Vec<Cursor<'_>> = self.columns.iter().map(|column| Cursor::new(column)).collect();
        let value = |cursor: &mut Cursor<'_>| {
            let length = usize::try_from(cursor.int32().ok()?).ok()?;
            cursor.bytes(length).ok().map(<[u8]>::to_vec)
        };
        (0..self.count).map(|_| cursors.iter_mut().map(value).collect()).collect()
    }
}

/// Spec: `array_recv` in `src/backend/utils/adt/arrayfuncs.c`.
fn array(elements: &[u8], count: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(elements.len() + 20);
    let dimensions = u32::from(count > 0);
    for word in [dimensions, 1, TEXT] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    if count > 0 {
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&1_u32.to_be_bytes());
        out.extend_from_slice(elements);
    }
    out
}

/// The names of a RowDescription's columns.
pub(super) fn described_names(description: &[u8]) -> Vec<String> {
    let mut cursor = Cursor::new(description);
    let count = cursor.int16().unwrap_or_default() as u16;
    let column = |_| {
        let name = String::from_utf8_lossy(cursor.string().ok()?).into_owned();
        cursor.bytes(18).ok()?;
        Some(name)
    };
    (0..count).map_while(column).collect()
}

/// The types of a RowDescription's columns, with their modifiers.
pub(super) fn described_types(description: &[u8]) -> Vec<(u32, i32)> {
    let mut cursor = Cursor::new(description);
    let count = cursor.int16().unwrap_or_default() as u16;
    let column = |_| {
        cursor.string().ok()?;
        cursor.bytes(6).ok()?;
        let oid = cursor.int32().ok()? as u32;
        cursor.bytes(2).ok()?;
        let modifier = cursor.int32().ok()?;
        cursor.bytes(2).ok()?;
        Some((oid, modifier))
    };
    (0..count).map_while(column).collect()
}

/// A RowDescription's body with the formats of a Bind: none is text, one is for all columns.
pub(super) fn with_formats(rows: &[u8], formats: &[i16]) -> Vec<u8> {
    let mut out = rows.to_vec();
    let mut at = 2;
    let mut column = 0;
    while let Some(length) = out.get(at..).and_then(|rest| memchr::memchr(0, rest)) {
        let code = at + length + 1 + 16;
        let format = formats.get(column).or(formats.first().filter(|_| formats.len() == 1)).copied().unwrap_or(0);
        if let Some(field) = out.get_mut(code..code + 2) {
            field.copy_from_slice(&format.to_be_bytes());
        }
        at = code + 2;
        column += 1;
    }
    out
}
