//! Bytes to frames and back, one folder a protocol. Pure: no I/O, no clock; nothing here knows the broker.

pub mod stomp;
