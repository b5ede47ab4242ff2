//! What only the administration sockets understand: the one table of questions and orders, by the words that
//! stand for them in a frame. Pure data.

macro_rules! questions {
    ($($(#[doc = $meaning:literal])* $name:ident $word:literal;)*) => {
        #[derive(Debug, PartialEq, Eq, Clone, Copy)]
        pub enum Question {
            $($(#[doc = $meaning])* $name,)*
        }

        impl Question {
            pub const ALL: &[Question] = &[$(Question::$name),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Question::$name => $word,)*
                }
            }
        }
    };
}

questions! {
    /// How the daemon is.
    Status "status";
    /// Read the configuration again, and the templates; answered when everybody goes by them, see `reload`.
    Reload "reload";
    /// Answered when the daemon has stopped working, with the number of messages left.
    Wait "wait";
    /// The daemon is to stop; answered at once, see `traffic::steer::Halt`.
    Stop "stop";
    /// Answered with the listening sockets, for the daemon that takes this one's place.
    Listeners "listeners";
    /// Failed messages are to go out again, or to be dismissed; see `ledger::order`.
    Requeue "requeue";
    Dismiss "dismiss";
    /// The text of a template that is in use; the body is its key as a JSON string.
    Template "template";
    /// Sending pauses, or goes on; see `traffic::steer`.
    Pause "pause";
    Resume "resume";
    /// Nothing is taken in any more, and the daemon stops when nothing is left; or not after all.
    Drain "drain";
    EndDrain "end-drain";
    /// Queued messages are ended or counted, or an order to do so is asked after.
    Cancel "cancel";
    /// How much is logged.
    LogLevel "log-level";
}

impl Question {
    /// It changes nothing, and tells nothing that would not stand on a dashboard.
    pub fn only_reads(self) -> bool {
        self == Question::Status
    }
}
