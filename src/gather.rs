//! Rows of several shards put together: compared, merged, cut, and written as COPY data. Pure.
//!
//! Rows are whole DataRow messages as servers sent them. A row's values are read only where it is sorted, and only for types whose order
//! can be reproduced exactly; all else is PostgreSQL's work.

pub mod compare;
pub mod copy;
pub mod cut;
pub mod merge;
pub mod row;

pub use compare::{SortSession, SortType, SortValue};
pub use copy::{BINARY_HEADER, BINARY_TRAILER, CopyFormat, CopyMarks, CopyWriter};
pub use cut::{Admission, RowWindow, cut_description, cut_row};
pub use merge::{MergeKey, MergeStep, RowMerge};
pub use row::{GatherError, RowValues};
