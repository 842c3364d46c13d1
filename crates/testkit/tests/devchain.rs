//! The development chain, deployed and seeded on a real anvil.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pools_core::{
    chain::{Block, Call, ChainConfig, ChainPool, Function, Token, U256, parse_address},
    http::{HttpConfig, HttpPool},
    redact::SecretString,
};
use serde_json::json;
use testkit::{
    AnvilOptions, anvil, anvil_with,
    devchain::{DevchainError, Role, deploy, deploy_for},
};

#[tokio::test]
async fn the_chain_is_seeded_as_the_plan_says_and_a_second_run_changes_nothing() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let node = anvil_with(AnvilOptions { timestamp: Some(now - 7_200), ..AnvilOptions::default() }).await;

    let first = deploy(&node.url()).await.unwrap();

    assert_eq!(first.contract, "0xa513E6E4b8f2a923D98304ec87F64353C4D5C853");
    assert_eq!(first.tokens[2].address.as_deref(), Some("0x5FC8d32690cc91D4c39d9d3abcBD16989F875707"));
    assert_eq!(first.to_liquidate(), [4, 5, 7, 14, 15]);
    assert_eq!(first.with_role(Role::Healthy), [11, 12, 13]);
    let statuses = [3, 4, 1, 2, 2, 2, 6, 0, 0, 5, 2, 2, 6, 2, 2];
    assert_eq!(loan_statuses(&node.url(), &first.contract).await, statuses);

    let second = deploy(&node.url()).await.unwrap();

    assert_eq!(second, first);
    let bot = "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720";
    assert_eq!(node.rpc("eth_getTransactionCount", json!([bot, "latest"])).await, "0x0");
}

#[tokio::test]
async fn another_liquidator_is_given_what_it_needs_once() {
    let node = anvil().await;
    let bot = "0x00000000000000000000000000000000000B0b01".to_lowercase();
    let first = deploy_for(&node.url(), Some(&bot), |_| {}).await.unwrap();
    let balance = node.rpc("eth_getBalance", json!([bot, "latest"])).await;
    assert_eq!(balance, format!("{:#x}", 100 * 10_u128.pow(18)));
    let second = deploy_for(&node.url(), Some(&bot), |_| {}).await.unwrap();
    assert_eq!(second, first);
    let error = deploy_for(&node.url(), Some("0x12"), |_| {}).await.unwrap_err();
    assert!(matches!(error, DevchainError::Bad { .. }), "{error:?}");
}

#[tokio::test]
async fn another_chain_and_a_half_seeded_one_are_refused_untouched() {
    let other = anvil_with(AnvilOptions { chain_id: Some(1), ..AnvilOptions::default() }).await;
    let error = deploy(&other.url()).await.unwrap_err();
    assert!(matches!(error, DevchainError::NotDevelopment { chain_id: 1 }), "{error:?}");
    assert_eq!(other.rpc("eth_blockNumber", json!([])).await, "0x0");

    let half = anvil().await;
    let accounts = half.rpc("eth_accounts", json!([])).await;
    half.rpc("eth_sendTransaction", json!([{"from": accounts[0], "to": accounts[1], "value": "0x1"}])).await;
    let error = deploy(&half.url()).await.unwrap_err();
    assert!(matches!(error, DevchainError::HalfSeeded { sent: 1 }), "{error:?}");
    assert_eq!(half.rpc("eth_blockNumber", json!([])).await, "0x1");
}

/// The status of every loan, read in one scan.
async fn loan_statuses(url: &str, contract: &str) -> Vec<u64> {
    let config = ChainConfig { url: SecretString::from(url), ..ChainConfig::default() };
    let pool = ChainPool::new(config, HttpPool::new(HttpConfig::default()));
    let loans = Function::parse(
        "function loans(uint256) view returns (uint256 id, address borrower, uint256 tokenId, \
         uint256 collateralTokenId, uint256 amount, uint256 amountFunded, uint256 collateralAmount, \
         uint256 interestRate, uint256 duration, uint256 minContribution, uint256 fundingDeadline, \
         uint256 createdAt, uint256 fundedAt, uint256 dueDate, uint8 status, string ipfsDocumentHash, \
         uint256 riskScore, uint256 liquidationThreshold, uint256 totalRepaid, uint256 earlyRepaymentPenalty)",
    );
    let loans = Arc::new(loans.expect("a signature"));
    let at = loans.outputs().position(|name| name == "status").expect("a status");
    let contract = parse_address(contract).expect("an address");
    let call = |id: u64| Call::new(contract, &loans, vec![Token::Uint(U256::from(id))]);
    let loans = pool.provider().read_many((1..=15).map(call).collect(), Block::Latest).await;
    let status = |loan: Vec<Token>| loan[at].clone().into_uint().expect("a number").as_u64();
    loans.into_iter().map(|loan| status(loan.expect("a loan"))).collect()
}
