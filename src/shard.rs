//! Where rows live: which shard holds which key. Pure; knows neither SQL nor servers.
//!
//! A [`ShardMap`] is made once from the settings and never changes; a reload makes a new one. Values are read only where there is no
//! doubt about what a server would make of them ([`reading`]); a key that is not known means every shard.

pub mod copy;
pub mod hash;
pub mod key;
pub mod map;
pub mod reading;
pub mod ring;
pub mod scheme;

pub use copy::{CopyDataError, CopyField, CopyLayout, CopyPart, CopySplitter, CsvLayout, LineNumbers, TextLayout, lines_of};
pub use hash::hash_key;
pub use key::{KeyColumn, KeyType, KeyValue};
pub use map::{QualifiedName, ShardMap, ShardSet, ShardedTable, TablePlace};
pub use reading::{KeySession, KeyTexts, KeyUse, SentParameter};
pub use ring::Ring;
pub use scheme::{KeyRange, ListScheme, RangeProblem, RangeScheme, Scheme};
