//! WeChat's API: the calls, the token they need, and what its answers mean. Runs on the worker
//! threads; holds no lock while it waits for WeChat.

pub mod answer;
mod calls;
pub mod client;
pub mod errcode;
mod hosts;
pub mod json;
pub mod live;
pub mod meaning;
pub mod probe;
pub mod refresh;
mod resolver;
mod tls;
pub mod token;
mod transport;
