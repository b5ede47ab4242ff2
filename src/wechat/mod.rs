//! WeChat's API: the calls, the token they need, and what its answers mean. Runs on the worker
//! threads; holds no lock while it waits for WeChat.

pub mod client;
pub mod errcode;
pub mod json;
pub mod meaning;
mod resolver;
pub mod token;
mod transport;
