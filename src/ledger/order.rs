//! What `requeue` and `dismiss` say on the administration socket: JSON both ways. One request is one step
//! of bounded size, and its answer says where the next one begins, so that whoever asks shows progress,
//! and nothing goes on when nobody asks any more. Plain data.

use super::filter::Filter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Rows and bytes of data that one step takes at most.
pub const STEP: usize = 512;
pub const STEP_BYTES: usize = 1 << 20;

/// The class of what came from an old list.
pub const OLD_LIST: &str = "list";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub filter: Filter,
    /// Who asks.
    pub by: String,
    /// Rows behind this one only, and up to that; what fails after the first step is not met.
    pub after: i64,
    pub bound: Option<i64>,
    pub limit: usize,
    /// Of an old list: these only, which the ledger may not know yet.
    #[serde(default)]
    pub lines: Option<Vec<Line>>,
}

/// A line of an old failed list.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    /// Unix ms.
    pub time: u64,
    pub openid: String,
    pub key: String,
    pub data: Option<Box<RawValue>>,
    pub attempts: u8,
    pub errcode: Option<i64>,
    pub errmsg: String,
    pub client_msg_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// Rows that this step has requeued or dismissed.
    pub count: usize,
    pub after: i64,
    pub bound: i64,
    /// There is nothing left to be asked for.
    pub done: bool,
    /// Messages that fit into no segment: they stay as they are.
    pub too_large: usize,
    /// Why the step came to an end before its time.
    pub stopped: Option<String>,
}
