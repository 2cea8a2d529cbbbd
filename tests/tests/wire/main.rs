//! What the gateway says on the wire, message by message, to a client that shares no code with it.
//!
//! - `setup`: SetupConnection and its refusals
//! - `channels`: opening, changing and closing channels
//! - `shares`: every answer a share can get
//! - `work`: jobs, tips, and the channel bit of every message
//! - `groups`: what channels of one connection are told together
//! - `vardiff`: difficulty that follows the shares
//! - `extensions`: negotiation, and worker names behind shares
//! - `users`: who may mine
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod channels;
mod extensions;
mod groups;
mod setup;
mod shares;
mod users;
mod vardiff;
mod work;

use anyhow::Result;
use reservegrid_tests::{
    client::Client,
    gateway::{DEADLINE, Gateway},
};
use serde_json::Value;

/// A client that is set up.
async fn client(gateway: &Gateway, flags: u32) -> Result<Client> {
    let mut client = Client::connect(gateway).await?;
    client.setup(flags).await?;
    Ok(client)
}

/// The event with which the gateway says why it refused a share.
async fn rejection(gateway: &mut Gateway, channel: u32, user: &str, sequence_number: u32) -> Result<Value> {
    gateway
        .wait_for_event("the rejection of a share", DEADLINE, |e| {
            e["event"] == "share_rejected"
                && e["channel"] == channel
                && e["user_identity"] == user
                && e["sequence_number"] == sequence_number
        })
        .await
}
