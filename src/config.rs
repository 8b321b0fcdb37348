//! What the operator wrote (`file`), what it means (`settings`), and what may change at a reload (`diff`).

pub mod settings;

pub use settings::*;
