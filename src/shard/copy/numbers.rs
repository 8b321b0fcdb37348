//! The numbers of lines: what is line 7 for a shard is another line of the client's data.

use std::collections::VecDeque;

/// What is remembered of each shard's lines. Bytes.
const NOTES_MAX: usize = 512 * 1024;

/// Where the lines that a shard got stand in the data. The last ones are remembered, about half a million: a server reports a line before it
/// has got so many others.
#[derive(Debug, Default)]
pub struct LineNumbers {
    /// For each row its distance from the row before and its lines, as numbers of seven bits a byte.
    notes: VecDeque<u8>,
    /// Lines before the first row that is remembered: the shard's, and the data's.
    first: (u64, u64),
    /// Lines behind the last row.
    last: (u64, u64),
}

impl LineNumbers {
    /// Whether the shard has got nothing yet.
    pub fn is_empty(&self) -> bool {
        self.last.0 == 0
    }

    /// The shard gets a row that stands behind `before` lines of the data: so many lines as it counts them, and as they are in the data.
    pub fn note(&mut self, before: u64, (own, lines): (u64, u64)) {
        let gap = before.saturating_sub(self.last.1);
        let several = own != 1 || lines != 1;
        self.put(gap << 1 | u64::from(several));
        if several {
            self.put(own);
            self.put(lines);
        }
        self.last = (self.last.0 + own, before + lines);
        while self.notes.len() > NOTES_MAX {
            let mut length = 0;
            self.first = self.step(&mut length, self.first).1;
            self.notes.drain(..length);
        }
    }

    /// The number in the data of a line of the shard's; `None` if it was forgotten. Lines behind the last row count from `end`, the number of the
    /// data's lines.
    pub fn find(&self, line: u64, end: u64) -> Option<u64> {
        if line > self.last.0 {
            return Some(end + (line - self.last.0));
        }
        let (mut at, mut so_far) = (0, self.first);
        if line <= so_far.0 {
            return None;
        }
        while at < self.notes.len() {
            let (before, behind) = self.step(&mut at, so_far);
            if line <= behind.0 {
                let same = behind.0 - so_far.0 == behind.1 - before;
                return Some(if same { before + (line - so_far.0) } else { behind.1 });
            }
            so_far = behind;
        }
        None
    }

    /// Reads the note at `at`: the lines of the data before the row, and all lines behind it.
    fn step(&self, at: &mut usize, so_far: (u64, u64)) -> (u64, (u64, u64)) {
        let head = self.take(at);
        let (own, lines) = if head & 1 == 1 { (self.take(at), self.take(at)) } else { (1, 1) };
        let before = so_far.1 + (head >> 1);
        (before, (so_far.0 + own, before + lines))
    }

    fn put(&mut self, mut number: u64) {
        while number > 0x7f {
            self.notes.push_back(number as u8 | 0x80);
            number >>= 7;
        }
        self.notes.push_back(number as u8);
    }

    fn take(&self, at: &mut usize) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some(byte) = self.notes.get(*at) {
            *at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 56 {
                break;
            }
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_again() {
        let mut numbers = LineNumbers::default();
        // The header is line 1 of both.
        numbers.note(0, (1, 1));
        numbers.note(1, (1, 1));
        numbers.note(4, (3, 3));
        numbers.note(1_000_000, (1, 1));
        for (line, expect) in [(1, 1), (2, 2), (3, 5), (4, 6), (5, 7), (6, 1_000_001), (7, 1_000_011)] {
            assert_eq!(numbers.find(line, 1_000_010), Some(expect), "{line}");
        }
        assert_eq!(LineNumbers::default().find(1, 5), Some(6));
        // What is one line for a shard can be several in the data.
        let mut numbers = LineNumbers::default();
        numbers.note(2, (1, 3));
        numbers.note(5, (1, 1));
        assert_eq!((numbers.find(1, 6), numbers.find(2, 6)), (Some(5), Some(6)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut numbers = LineNumbers::default();
        for row in 0..1_000_000 {
            numbers.note(row * 3, (1, 1));
        }
        assert!(numbers.notes.len() <= NOTES_MAX);
        assert_eq!(numbers.find(1, 3_000_000), None);
        assert_eq!(numbers.find(1_000_000, 3_000_000), Some(2_999_998));
        assert_eq!(numbers.find(500_000, 3_000_000), Some(1_499_998));
    }
}
