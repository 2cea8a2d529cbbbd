//! The harness itself: what the end-to-end tests take for granted about the node and its mempool.

use anyhow::Result;
use reservegrid_tests::{
    mempool::Wallet,
    node::{Auth, Node},
};
use serde_json::json;

#[tokio::test]
async fn the_mempool_of_a_real_node_is_filled_with_thousands_of_transactions_that_make_a_template()
-> Result<()> {
    let node = Node::start().await?;
    let mut wallet = Wallet::funded(&node, 2_600).await?;
    let filled = wallet.fill(&node, 2_500).await?;
    assert!(filled.transactions >= 2_500, "{filled:?}");
    assert_eq!(node.mempool_size().await?, filled.transactions as u64);

    // A block holds all of them; fees and weights are then the ones of the wallet.
    let height = node.height().await?;
    wallet.mine(&node, 1).await?;
    assert_eq!((node.height().await?, node.mempool_size().await?), (height + 1, 0));

    let more = wallet.fill(&node, 20).await?;
    let template = node.template().await?;
    let transactions = template["transactions"].as_array().map_or(0, Vec::len);
    let fees: u64 =
        template["transactions"].as_array().into_iter().flatten().filter_map(|t| t["fee"].as_u64()).sum();
    assert_eq!((transactions, fees), (more.transactions, more.fees.to_sat()));
    Ok(())
}

#[tokio::test]
async fn a_node_with_user_and_password_refuses_others() -> Result<()> {
    let node = Node::start_with(Auth::Password).await?;
    let stranger = reservegrid_tests::node::Rpc::new(node.url(), "tester:wrong")?;
    assert!(stranger.call("getblockcount", json!([])).await.is_err());
    assert_eq!(node.height().await?, 0);
    Ok(())
}
