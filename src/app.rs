//! app

pub mod arguments;
pub mod commands;
