//! A node without a cluster asks one for a place in it.

use super::format::{Frame, Hello, Purpose};
use super::handshake::{self, DialError, HANDSHAKE_BYTES_MAX};
use super::{JoinReply, JoinRequest};
use crate::cluster::{Address, Pace, Starts};
use std::time::Duration;

/// The largest body of a reply, in bytes: a thousand nodes with the longest names.
pub(super) const REPLY_BYTES_MAX: usize = 512 * 1024;

/// Sends a request to the node at `address` and returns its reply. Following a redirect and asking again are the caller's business.
///
/// # Errors
/// If there is no reply within `timeout`.
pub async fn request_join(address: &Address, request: JoinRequest, timeout: Duration) -> Result<JoinReply, DialError> {
    let hello = Hello {
        purpose: Purpose::Join,
        cluster: 0,
        from: 0,
        to: 0,
        client: request.client.clone(),
        peer: request.peer.clone(),
        starts: Starts::default(),
        pace: Pace::default(),
    };
    let asking = async {
        let mut stream = handshake::dial(address, &hello, timeout).await?;
        handshake::write_frame(&mut stream, false, &Frame::JoinRequest(request), HANDSHAKE_BYTES_MAX).await?;
        match handshake::read_frame(&mut stream, REPLY_BYTES_MAX).await? {
            Frame::JoinReply(reply) => Ok(reply),
            _ => Err(DialError::Unexpected),
        }
    };
    tokio::time::timeout(timeout, asking).await.unwrap_or(Err(DialError::TimedOut(timeout)))
}
