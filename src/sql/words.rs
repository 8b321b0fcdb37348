//! One table of every name that means something: keywords, functions, suspect objects. A statement's word costs one look-up.

mod keywords;

use std::ops::{BitOr, BitOrAssign};

/// What is known of a name. A set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WordFlags(pub u32);

macro_rules! flags {
    ($($name:ident = $bit:literal, $doc:literal;)*) => {
        impl WordFlags {
            $(#[doc = $doc] pub const $name: WordFlags = WordFlags(1 << $bit);)*
        }
    };
}

flags! {
    RESERVED = 0, "A keyword that cannot be a function's name: `in (`, `and (`, `varchar(`.";
    GRAMMAR = 1, "A keyword that may stand before a parenthesis; if it were a function, the catalogue would say so.";
    FUNCTION = 2, "A function whose overloads are all known.";
    VOLATILE = 3, "A function that may write or leave something behind in some overload.";
    SUSPECT = 4, "A view, type or policy over something volatile; a sequence; an unlogged or foreign table.";
    SERVER_CALL = 5, "A function that describes the server or the session.";
    SERVER_NAME = 6, "A relation that describes the server or the session.";
    OPAQUE = 7, "A function whose source may change the session's state, or a view over one.";
    ADVISORY = 8, "Takes a session-level advisory lock.";
    SEQUENCE = 9, "Reads the session's memory of a sequence.";
    SESSION_BOUND = 10, "A volatile function whose effect is bound to the session or transaction on the primary.";
    SET_CONFIG = 11, "`set_config`.";
    CURRENT_SETTING = 12, "`current_setting`.";
    SUSPECT_IF_CAST = 13, "A table with a column of a suspect type: suspect where the statement casts.";
    TREE = 14, "A view, or a table with row security: its name does not say which tables are used.";
    SIDE_EFFECTS = 15, "A table whose writes reach further: triggers, rules, cascading keys.";
    OPAQUE_WRITE = 16, "A table with a trigger or default over an opaque function.";
    INTO = 17, "INTO: reserved, and in no read.";
    FOR = 18, "FOR.";
    LOCK_STRENGTH = 19, "UPDATE, NO, SHARE, KEY: behind FOR they make a locking clause.";
    DATA_CHANGE = 20, "INSERT, UPDATE, DELETE, MERGE.";
    BEFORE_EXPRESSION = 21, "No statement can start behind it: SELECT, AND, ON.";
    BEFORE_DEFINITION = 22, "A name and a parenthesis behind it are no call: AS, WITH, RECURSIVE.";
    CAST = 23, "CAST, TREAT: an explicit coercion.";
    JUXTAPOSES = 24, "DISTINCT, OPERATOR: a call may follow their closing parenthesis.";
    TEMPORARY = 25, "TEMP, TEMPORARY, PG_TEMP.";
    CHAINS = 26, "AND, OR, UNION ...: deepens a parser's tree by one.";
    ONLY = 27, "ONLY: sqlparser takes it for a table.";
    CLAUSE = 28, "FROM, WHERE, CASE, UNION ...: what stands in the statement may not run, or not once.";
    ORDERING = 29, "ORDER, GROUP, LIMIT, OFFSET, FETCH: literals behind it change the statement's shape.";
    READS_TABLES = 30, "A user's function, or what rests on one: it may read any table.";
    LOCAL_SETTING = 31, "A function that sets parameters to the end of the transaction.";
}

impl WordFlags {
    /// Nothing is known.
    pub const NONE: WordFlags = WordFlags(0);
    /// What a quoted name cannot be.
    const KEYWORD: WordFlags = WordFlags(
        Self::RESERVED.0
            | Self::GRAMMAR.0
            | Self::INTO.0
            | Self::FOR.0
            | Self::LOCK_STRENGTH.0
            | Self::DATA_CHANGE.0
            | Self::BEFORE_EXPRESSION.0
            | Self::BEFORE_DEFINITION.0
            | Self::CAST.0
            | Self::JUXTAPOSES.0
            | Self::CHAINS.0
            | Self::ONLY.0
            | Self::CLAUSE.0
            | Self::ORDERING.0,
    );

    /// Whether any of `other` is in `self`.
    #[inline]
    pub fn has(self, other: WordFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// Without what only an unquoted keyword can be.
    #[inline]
    pub fn as_quoted(self) -> WordFlags {
        self.without(Self::KEYWORD)
    }

    /// Those of `self` that `other` lacks.
    #[inline]
    pub fn without(self, other: WordFlags) -> WordFlags {
        WordFlags(self.0 & !other.0)
    }
}

impl BitOr for WordFlags {
    type Output = WordFlags;

    #[inline]
    fn bitor(self, other: WordFlags) -> WordFlags {
        WordFlags(self.0 | other.0)
    }
}

impl BitOrAssign for WordFlags {
    #[inline]
    fn bitor_assign(&mut self, other: WordFlags) {
        self.0 |= other.0;
    }
}

/// PostgreSQL cuts longer identifiers.
/// Spec: NAMEDATALEN in pg_config_manual.h.
const NAME_LENGTH_MAX: usize = 63;

/// Names with their flags: open addressing, at most half full.
#[derive(Clone, Debug)]
pub struct WordTable {
    slots: Vec<Slot>,
    names: Vec<u8>,
    count: usize,
    /// Union of the flags of all names with bytes over 0x7F: the client's encoding may not be the catalogue's, so that any such name
    /// in a text may be any of them.
    beyond_ascii: WordFlags,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u32,
    flags: u32,
    start: u32,
    /// 0 is an empty slot.
    length: u32,
}

impl WordTable {
    /// The keywords of PostgreSQL.
    pub fn with_keywords() -> Self {
        let mut table =
            WordTable { slots: vec![Slot::default(); 1024], names: Vec::new(), count: 0, beyond_ascii: WordFlags::NONE };
        for (flags, words) in keywords::KEYWORDS {
            for word in words.split_ascii_whitespace() {
                table.add(word, *flags);
            }
        }
        table
    }

    /// Adds flags to a name (as the catalogue has it: not folded). True if that says something new.
    pub fn add(&mut self, name: &str, flags: WordFlags) -> bool {
        let name = name.as_bytes();
        if name.is_empty() || name.len() > 4 * NAME_LENGTH_MAX {
            return false;
        }
        if !name.is_ascii() {
            let before = self.beyond_ascii;
            self.beyond_ascii |= flags.without(WordFlags::FUNCTION);
            return before != self.beyond_ascii;
        }
        if (self.count + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let hash = hash_of(name);
        let index = self.index_of(hash, |candidate| candidate == name);
        let slot = &mut self.slots[index];
        if slot.length == 0 {
            let (Ok(start), Ok(length)) = (u32::try_from(self.names.len()), u32::try_from(name.len())) else { return false };
            *slot = Slot { hash, flags: flags.0, start, length };
            self.names.extend_from_slice(name);
            self.count += 1;
            return true;
        }
        let before = slot.flags;
        slot.flags |= flags.0;
        before != slot.flags
    }

    fn grow(&mut self) {
        let old = std::mem::take(&mut self.slots);
        self.slots = vec![Slot::default(); old.len() * 2];
        for slot in old.into_iter().filter(|slot| slot.length > 0) {
            let index = self.index_of(slot.hash, |_| false);
            self.slots[index] = slot;
        }
    }

    /// The slot of the name, or the empty one where it would stand.
    #[inline]
    fn index_of(&self, hash: u32, is_name: impl Fn(&[u8]) -> bool) -> usize {
        let mask = self.slots.len() - 1;
        let mut index = hash as usize & mask;
        loop {
            let slot = &self.slots[index];
            let found = slot.length == 0
                || slot.hash == hash && is_name(&self.names[slot.start as usize..slot.start as usize + slot.length as usize]);
            if found {
                return index;
            }
            index = (index + 1) & mask;
        }
    }

    /// What is known of an unquoted word, whatever its case.
    #[inline]
    pub fn word(&self, word: &[u8]) -> WordFlags {
        let hash = hash_of(word);
        if word.len() > NAME_LENGTH_MAX || hash == BEYOND_ASCII {
            return self.unusual(word, |table, cut| table.word(cut));
        }
        WordFlags(self.slots[self.index_of(hash, |name| same_folded(name, word))].flags)
    }

    /// What is known of a quoted name, without its quotes. It is never a keyword.
    pub fn quoted(&self, name: &[u8]) -> WordFlags {
        if name.contains(&b'"') {
            return self.doubled(name);
        }
        let hash = hash_of(name);
        if name.len() > NAME_LENGTH_MAX || hash == BEYOND_ASCII {
            return self.unusual(name, |table, cut| table.quoted(cut));
        }
        WordFlags(self.slots[self.index_of(hash, |candidate| candidate == name)].flags).as_quoted()
    }

    /// A name with doubled quotes in it; only a name that holds a quote itself can be meant.
    #[cold]
    fn doubled(&self, name: &[u8]) -> WordFlags {
        let mut plain = Vec::with_capacity(name.len());
        let mut bytes = name.iter();
        while let Some(byte) = bytes.next() {
            plain.push(*byte);
            if *byte == b'"' && bytes.next() != Some(&b'"') {
                return WordFlags::SUSPECT;
            }
        }
        if !plain.is_ascii() || plain.len() > NAME_LENGTH_MAX {
            return WordFlags::SUSPECT;
        }
        WordFlags(self.slots[self.index_of(hash_of(&plain), |candidate| *candidate == *plain)].flags).as_quoted()
    }

    #[cold]
    fn unusual(&self, name: &[u8], look_up: impl Fn(&Self, &[u8]) -> WordFlags) -> WordFlags {
        match (name.is_ascii(), name.len() > NAME_LENGTH_MAX) {
            (true, true) => look_up(self, &name[..NAME_LENGTH_MAX]),
            (true, false) => WordFlags::NONE,
            // Where a server cuts a character in two depends on its encoding: what is left may be any name.
            (false, true) => WordFlags::SUSPECT,
            (false, false) => self.beyond_ascii,
        }
    }
}

/// `name` stands in the table and may have capitals, which no unquoted word can name.
#[inline]
fn same_folded(name: &[u8], word: &[u8]) -> bool {
    name.len() == word.len() && name.iter().zip(word).all(|(a, b)| *a == b.to_ascii_lowercase())
}

/// The hash of every name that is not ASCII.
const BEYOND_ASCII: u32 = 0;
const FOLD: u64 = 0x2020_2020_2020_2020;
const HIGH: u64 = 0x8080_8080_8080_8080;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A hash that is the same for both cases of a letter; never [`BEYOND_ASCII`] for ASCII names.
#[inline]
fn hash_of(name: &[u8]) -> u32 {
    let mut hash = name.len() as u64;
    let mut seen = 0;
    let mut mix = |part: u64| {
        seen |= part;
        hash = (hash ^ (part | FOLD)).wrapping_mul(MULTIPLIER);
        hash ^= hash >> 32;
    };
    let (chunks, tail) = name.as_chunks::<8>();
    for chunk in chunks {
        mix(u64::from_le_bytes(*chunk));
    }
    if let Some(last) = name.last_chunk::<8>() {
        mix(u64::from_le_bytes(*last));
    } else if let (Some(first), Some(last)) = (tail.first_chunk::<4>(), tail.last_chunk::<4>()) {
        mix(u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32);
    } else {
        mix(tail.iter().fold(0, |part, byte| part << 8 | u64::from(*byte)));
    }
    if seen & HIGH != 0 { BEYOND_ASCII } else { hash as u32 | 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_words_as_postgresql_folds_them() {
        let mut table = WordTable::with_keywords();
        for index in 0..5000 {
            assert!(table.add(&format!("function_{index}"), WordFlags::FUNCTION));
        }
        assert!(table.add("Mixed", WordFlags::SUSPECT));
        assert!(table.add("update", WordFlags::VOLATILE));
        assert!(!table.add("update", WordFlags::VOLATILE));
        assert_eq!(table.word(b"Function_17"), WordFlags::FUNCTION);
        assert_eq!(table.word(b"function_5000"), WordFlags::NONE);
        assert_eq!(table.word(b"Mixed"), WordFlags::NONE);
        assert_eq!(table.quoted(b"Mixed"), WordFlags::SUSPECT);
        assert_eq!(table.quoted(b"mixed"), WordFlags::NONE);
        assert!(table.word(b"UPDATE").has(WordFlags::DATA_CHANGE));
        assert_eq!(table.quoted(b"update"), WordFlags::VOLATILE);
        assert_eq!(table.quoted(b"a\"\"b"), WordFlags::NONE);
        assert_eq!(table.quoted(b""), WordFlags::NONE);
    }

    #[test]
    fn long_and_foreign_names_are_suspect_where_they_may_be() {
        let mut table = WordTable::with_keywords();
        let long = "x".repeat(63);
        table.add(&long, WordFlags::VOLATILE);
        assert_eq!(table.word(format!("{long}yz").as_bytes()), WordFlags::VOLATILE);
        assert_eq!(table.word("größe".as_bytes()), WordFlags::NONE);
        assert_eq!(table.word("ä".repeat(40).as_bytes()), WordFlags::SUSPECT);
        table.add("größe_seq", WordFlags::SUSPECT);
        assert_eq!(table.word("größe".as_bytes()), WordFlags::SUSPECT);
        assert_eq!(table.quoted("größe".as_bytes()), WordFlags::SUSPECT);
        assert_eq!(table.word(b"groesse"), WordFlags::NONE);
    }
}
