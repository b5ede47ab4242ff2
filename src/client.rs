//! A blocking client of the administration socket, as the command line uses it: one request, one
//! result, and a deadline for both together.

use crate::daemon::{Place, Process, admin};
use crate::wire::command::{self, Command};
use crate::wire::frame::{Split, split};
use crate::wire::question::Question;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt, sockopt::Timeout,
};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longer than the daemon tries a send.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Results are short; this bounds what a stranger can make us read.
const RESULT_LIMIT: usize = 16 << 20;

/// As many descriptors as one message can carry (unix(7), SCM_MAX_FD).
const DESCRIPTORS: usize = 253;

pub struct Client {
    wire: UnixStream,
    /// Who answers.
    pub process: Process,
    /// For one request and its result.
    pub patience: Duration,
    deadline: Instant,
    received: Vec<u8>,
}

pub struct Answer {
    pub code: u16,
    pub message: String,
}

/// The error of `Client::admin` that means that no daemon is there.
pub fn nobody_listens(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

impl Client {
    /// To the daemon that runs in this place.
    pub fn admin(place: &Place, patience: Duration) -> io::Result<Client> {
        let (wire, process) = admin::connect(place, patience)?;
        let deadline = Instant::now() + patience;
        Ok(Client { wire, process, patience, deadline, received: Vec::new() })
    }

    pub fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.deadline = Instant::now() + self.patience;
        sockopt::set_socket_timeout(&self.wire, Timeout::Send, Some(self.patience))?;
        self.wire.write_all(frame).map_err(timed_out)
    }

    /// Lets the next read wait until the deadline and no longer.
    fn wait(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timed_out(io::ErrorKind::WouldBlock.into()));
        }
        Ok(sockopt::set_socket_timeout(&self.wire, Timeout::Recv, Some(left))?)
    }

    /// The next result.
    pub fn read(&mut self) -> io::Result<Answer> {
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not a result");
        loop {
            match split(&self.received, RESULT_LIMIT) {
                Split::TooLong => return Err(garbled()),
                Split::Frame { payload, size } => {
                    let Ok(Command::Result { code, message, .. }) = command::decode(payload) else {
                        return Err(garbled());
                    };
                    let code = std::str::from_utf8(code).ok().and_then(|code| code.parse().ok());
                    let code = code.ok_or_else(garbled)?;
                    let message = String::from_utf8_lossy(message).into_owned();
                    self.received.drain(..size);
                    return Ok(Answer { code, message });
                }
                Split::Partial { .. } => {
                    let mut chunk = [0; 16 * 1024];
                    self.wait()?;
                    match self.wire.read(&mut chunk).map_err(timed_out)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        count => self.received.extend_from_slice(&chunk[..count]),
                    }
                }
            }
        }
    }

    pub fn call(&mut self, frame: &[u8]) -> io::Result<Answer> {
        self.write(frame)?;
        self.read()
    }

    /// One question that only the administration socket understands.
    pub fn ask(&mut self, question: Question, body: &[u8]) -> io::Result<()> {
        let mut frame = Vec::new();
        command::encode_ask(&mut frame, 1, question, body);
        self.write(&frame)
    }

    /// Takes over the sockets that the daemon listens on: `ResourceBusy` if another has them, or the
    /// daemon ends already.
    pub fn listeners(&mut self) -> io::Result<Vec<OwnedFd>> {
        self.ask(Question::Listeners, b"")?;
        self.wait()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0; 1024];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let into = &mut [IoSliceMut::new(&mut chunk)];
        let got = recvmsg(&self.wire, into, &mut ancillary, flags);
        let got = got.map_err(|error| timed_out(error.into()))?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        self.received.extend_from_slice(&chunk[..got.bytes]);
        let answer = self.read()?;
        match answer.code {
            command::OK => Ok(descriptors),
            command::UNAVAILABLE => {
                Err(io::Error::new(io::ErrorKind::ResourceBusy, answer.message))
            }
            _ => Err(io::Error::other(answer.message)),
        }
    }
}

/// The kernel calls it "try again".
pub fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
        _ => error,
    }
}
