//! BatonMQ: a message broker whose high availability comes from the database its users already run.
//!
//! `ARCHITECTURE.md` tells the story of a message through these modules. A module imports modules below it only.

pub mod broker;
pub mod cli;
pub mod codec;
pub mod config;
pub mod console;
pub mod db;
pub mod doctor;
pub mod election;
pub mod engine;
pub mod node;
pub mod persistence;
pub mod server;
pub mod session;
pub mod tasks;
pub mod telemetry;
pub mod types;
