//! How answers are sent.

use fuser::ReplyXattr;

use super::translate::to_u32;
use crate::error::{Error, Result};

/// Sends the value, or the error, of a call.
macro_rules! answer {
    ($reply:ident, $result:expr, $value:pat => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(errno) => $reply.error(errno),
        }
    };
}

/// Sends the answer to a change of names: with `sync` or `dirsync`, once it is durable.
macro_rules! answer_change {
    ($door:ident, $op:literal, $node:ident, $reply:ident, $done:expr, $value:pat => $send:expr) => {
        answer!($reply, $done, $value => $door.in_time($op, $node, move |durable| {
            answer!($reply, durable, () => $send);
        }))
    };
}

/// As [`answer_change`], with the entry of a new name.
macro_rules! answer_entry {
    ($door:ident, $op:literal, $node:ident, $reply:ident, $result:expr) => {
        answer_change!($door, $op, $node, $reply, $result, e => {
            $reply.entry(&e.ttl, &file_attr(&e.attr), GENERATION);
        })
    };
}

pub(super) use {answer, answer_change, answer_entry};

/// The value, unless the caller's buffer is too small; size 0 only asks for the length.
pub(super) fn fitting(value: Vec<u8>, size: u32) -> Result<Vec<u8>> {
    if size != 0 && value.len() > size as usize { Err(Error::Range) } else { Ok(value) }
}

pub(super) fn send_xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(to_u32(value.len() as u64));
    } else {
        reply.data(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_zero_asks_for_the_length_only() {
        assert_eq!(fitting(vec![1, 2, 3], 0).unwrap().len(), 3);
        assert_eq!(fitting(vec![1, 2, 3], 3).unwrap().len(), 3);
        assert!(matches!(fitting(vec![1, 2, 3], 2), Err(Error::Range)));
    }
}
