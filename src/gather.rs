//! Rows of several shards put together: compared, merged, cut, and held as arrays for a query that finishes the answer. Pure.
//!
//! Rows are whole DataRow messages as servers sent them. A row's values are read only where it is sorted, and only for types whose order
//! can be reproduced exactly; all else is PostgreSQL's work.

pub mod arrays;
pub mod compare;
pub mod cut;
pub mod merge;
pub mod row;

pub use arrays::RowArrays;
pub use compare::{SortSession, SortType, SortValue};
pub use cut::{Admission, RowWindow, cut_description, cut_row};
pub use merge::{MergeKey, MergeStep, RowMerge};
pub use row::{GatherError, RowValues};
