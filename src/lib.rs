//! pgyard: a PostgreSQL proxy that splits reads from writes by measured freshness, pools connections and routes by shard.
//!
//! A folder is a layer and imports only lower layers (`tests/tidy.rs` checks it):
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`types`] |
//! | 1 | [`wire`], [`sql`], [`shard`], [`config`], [`metrics`], [`runtime`] |
//! | 2 | [`net`], [`auth`], [`gather`] |
//! | 3 | [`server`], [`route`], [`plan`] |
//! | 4 | [`pool`] |
//! | 5 | [`cluster`] |
//! | 6 | [`database`], [`coordinator`], [`twophase`], [`sequences`], [`reshard`] |
//! | 7 | [`session`], [`http`], [`demo`], [`inspection`] |
//! | 8 | [`admin`], [`sharded`] |
//! | 9 | [`app`] |

pub mod admin;
pub mod app;
pub mod auth;
pub mod cluster;
pub mod config;
pub mod coordinator;
pub mod database;
pub mod demo;
pub mod gather;
pub mod http;
pub mod inspection;
pub mod metrics;
pub mod net;
pub mod plan;
pub mod pool;
pub mod reshard;
pub mod route;
pub mod runtime;
pub mod sequences;
pub mod server;
pub mod session;
pub mod shard;
pub mod sharded;
pub mod sql;
pub mod twophase;
pub mod types;
pub mod wire;
