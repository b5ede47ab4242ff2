//! Placeholder.
pub mod database;
mod schema;
