//! What may go out on the shared connection.

use redis::{Arg, Cmd, Pipeline};

use super::error::RedisError;

/// What goes out in one piece.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline),
}

impl Request<'_> {
    /// Refuses what would hold up or change the connection for the others.
    pub(super) fn check(self, limit: usize) -> Result<(), RedisError> {
        let (bytes, needs_lease) = match self {
            Self::One(command) => (size(command), needs_lease(command)),
            Self::Many(pipeline) => {
                (pipeline.cmd_iter().map(size).sum(), pipeline.cmd_iter().any(needs_lease))
            }
        };
        if needs_lease {
            return Err(RedisError::NeedsLease);
        }
        if bytes > limit {
            return Err(RedisError::TooLarge { bytes, limit });
        }
        Ok(())
    }
}

fn arguments(command: &Cmd) -> impl Iterator<Item = &[u8]> {
    command.args_iter().filter_map(|argument| match argument {
        Arg::Simple(bytes) => Some(bytes),
        _ => None,
    })
}

fn size(command: &Cmd) -> usize {
    arguments(command).map(<[u8]>::len).sum()
}

/// Commands that wait at the server, and commands that leave the connection in another state.
fn needs_lease(command: &Cmd) -> bool {
    const NAMES: [&[u8]; 26] = [
        b"AUTH",
        b"BLMOVE",
        b"BLMPOP",
        b"BLPOP",
        b"BRPOP",
        b"BRPOPLPUSH",
        b"BZMPOP",
        b"BZPOPMAX",
        b"BZPOPMIN",
        b"DISCARD",
        b"EXEC",
        b"HELLO",
        b"MONITOR",
        b"MULTI",
        b"PSUBSCRIBE",
        b"PSYNC",
        b"PUNSUBSCRIBE",
        b"QUIT",
        b"RESET",
        b"SELECT",
        b"SSUBSCRIBE",
        b"SUBSCRIBE",
        b"UNSUBSCRIBE",
        b"WAIT",
        b"WAITAOF",
        b"WATCH",
    ];
    let Some(name) = arguments(command).next() else { return false };
    let streams = name.eq_ignore_ascii_case(b"XREAD") || name.eq_ignore_ascii_case(b"XREADGROUP");
    let blocks = || arguments(command).skip(1).any(|argument| argument.eq_ignore_ascii_case(b"BLOCK"));
    NAMES.iter().any(|listed| name.eq_ignore_ascii_case(listed)) || (streams && blocks())
}
