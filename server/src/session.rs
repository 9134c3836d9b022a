//! What one connection has agreed with the server: protocol, authentication, which replies it wants.
//!
//! A session is owned by its shard thread and changed only by commands of its own connection. What other threads may
//! see is in its [`ClientInfo`], which the session keeps up to date.

use crate::command::CommandSpec;
use crate::node::ClientInfo;
use crate::resp::Proto;
use std::sync::Arc;

/// Which replies a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyMode {
    On,
    Off,
    /// The command after this one gets no reply.
    SkipNext,
    /// This command gets no reply.
    Skip,
}

/// The state of a connection that commands can see and change.
#[derive(Debug)]
pub struct Session {
    /// The connection's id, see [`ClientInfo::id`].
    pub id: u64,
    /// The protocol version. To be changed by [`Session::set_proto`].
    pub proto: Proto,
    /// Whether the client may run commands.
    pub authenticated: bool,
    /// The client has said READONLY: it accepts what a replica knows, which may be old. To be changed by READONLY, READWRITE
    /// and RESET alone: the node's list of clients shows it too.
    pub read_only: bool,
    info: Arc<ClientInfo>,
    reply_mode: ReplyMode,
    no_touch: bool,
}

impl Session {
    /// A new connection's session. `authenticated` if no password is asked for.
    pub fn new(info: Arc<ClientInfo>, authenticated: bool) -> Self {
        Session {
            id: info.id,
            proto: Proto::Resp2,
            authenticated,
            read_only: false,
            info,
            reply_mode: ReplyMode::On,
            no_touch: false,
        }
    }

    /// What other threads see of the connection.
    pub fn info(&self) -> &Arc<ClientInfo> {
        &self.info
    }

    /// Whether the reply to the current command is not to be sent.
    #[inline]
    pub fn is_silent(&self) -> bool {
        matches!(self.reply_mode, ReplyMode::Off | ReplyMode::Skip)
    }

    /// Whether no replies are to be sent until further notice.
    #[inline]
    pub fn is_off(&self) -> bool {
        self.reply_mode == ReplyMode::Off
    }

    /// Whether reads of this connection leave a key's idle time as it is.
    #[inline]
    pub fn is_no_touch(&self) -> bool {
        self.no_touch
    }

    /// A command has arrived.
    #[inline]
    pub fn saw_command(&mut self, now_ms: u64) {
        self.info.seen(now_ms);
    }

    /// A command has run, or has been taken into a log entry.
    #[inline]
    pub fn ran_command(&mut self, spec: &'static CommandSpec) {
        self.info.ran(spec.id);
        self.answered();
    }

    /// A command is dealt with, be it run or refused: CLIENT REPLY SKIP is about the one after.
    #[inline]
    pub fn answered(&mut self) {
        self.reply_mode = match self.reply_mode {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            mode => mode,
        };
    }

    /// Changes the protocol version.
    pub fn set_proto(&mut self, proto: Proto) {
        self.proto = proto;
        self.info.set_proto(proto);
    }

    /// READONLY and READWRITE.
    pub(crate) fn set_read_only(&mut self, on: bool) {
        self.read_only = on;
        self.info.set_read_only(on);
    }

    pub(crate) fn replies_on(&mut self) {
        self.reply_mode = ReplyMode::On;
    }

    pub(crate) fn replies_off(&mut self) {
        self.reply_mode = ReplyMode::Off;
    }

    /// NB: nothing to skip when no reply is wanted anyway.
    pub(crate) fn reply_skip_next(&mut self) {
        if self.reply_mode != ReplyMode::Off {
            self.reply_mode = ReplyMode::SkipNext;
        }
    }

    pub(crate) fn set_no_touch(&mut self, on: bool) {
        self.no_touch = on;
        self.info.set_no_touch(on);
    }

    /// RESET: as if the client had just connected, but for its id and the library that it named.
    pub(crate) fn reset(&mut self, authenticated: bool) {
        self.set_proto(Proto::Resp2);
        self.authenticated = authenticated;
        self.replies_on();
        self.set_no_touch(false);
        self.set_read_only(false);
        self.info.set_no_evict(false);
        self.info.set_name("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn session() -> Session {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Session::new(Arc::new(ClientInfo::new(1, address, address, 0)), true)
    }

    #[test]
    fn skip_is_for_the_next_command_only() {
        let mut session = session();
        session.reply_skip_next();
        assert!(!session.is_silent());
        session.answered();
        assert!(session.is_silent());
        session.answered();
        assert!(!session.is_silent());
    }

    #[test]
    fn off_lasts_and_swallows_skip() {
        let mut session = session();
        session.replies_off();
        session.reply_skip_next();
        session.answered();
        session.answered();
        assert!(session.is_silent() && session.is_off());
        session.replies_on();
        assert!(!session.is_silent());
    }
}
