//! Giving the listening sockets to the command that restarts the daemon (SCM_RIGHTS, unix(7)): they
//! stay open while one daemon ends and the next begins, so that no connection is refused.

use super::stream::Stream;
use crate::wire::command;
use mio::net::TcpListener;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

/// Sends a result and the sockets with it; false if nothing was sent. Never blocks: the result is a
/// few bytes, and there is nothing before it in a socket that was just opened.
pub fn give(stream: &Stream, listeners: &[TcpListener], opaque: u32) -> bool {
    let Stream::Unix(stream) = stream else { return false };
    let mut frame = Vec::new();
    command::encode_result(&mut frame, command::OK, opaque, b"");
    let sockets: Vec<BorrowedFd> = listeners.iter().map(|socket| socket.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(sockets.len()))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    !sockets.is_empty()
        && ancillary.push(SendAncillaryMessage::ScmRights(&sockets))
        && sendmsg(stream, &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)
            .is_ok_and(|sent| sent == frame.len())
}
