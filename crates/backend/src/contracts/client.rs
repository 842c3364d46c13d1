//! The contract's view functions over the chain pool.
//!
//! Every read names the block it is made at, so that what belongs together comes from one state of the chain.

use std::sync::{Arc, LazyLock};

use pools_core::chain::{Address, Block, Call, ChainError, Function, Provider, Token, U256, keccak};

use super::{
    borrower::CreditRecord,
    error::ContractError,
    model::{Loan, SupportedToken, UsdValues},
};

/// Declares the functions of the contract that are read here.
macro_rules! functions {
    ($($name:ident = $signature:literal;)+) => {
        $( static $name: LazyLock<Arc<Function>> =
            LazyLock::new(|| Arc::new(Function::parse($signature).expect("BUG: a signature of our own"))); )+
    };
}

functions! {
    NEXT_LOAN_ID = "function nextLoanId() view returns (uint256)";
    LOANS = "function loans(uint256 id) view returns (uint256 id, address borrower, uint256 tokenId, uint256 collateralTokenId, uint256 amount, uint256 amountFunded, uint256 collateralAmount, uint256 interestRate, uint256 duration, uint256 minContribution, uint256 fundingDeadline, uint256 createdAt, uint256 fundedAt, uint256 dueDate, uint8 status, string ipfsDocumentHash, uint256 riskScore, uint256 liquidationThreshold, uint256 totalRepaid, uint256 earlyRepaymentPenalty)";
    USD_VALUE = "function calculateUSDValue(uint256 tokenId, uint256 amount) view returns (uint256)";
    ACTIVE_REQUESTS = "function getActiveLoanRequests() view returns (uint256[])";
    NEXT_TOKEN_ID = "function nextTokenId() view returns (uint256)";
    CREDIT_SCORES = "function creditScores(address borrower) view returns (uint256 score, uint256 totalLoansCount, uint256 repaidLoansCount, uint256 defaultedLoansCount, uint256 totalBorrowed, uint256 totalRepaid, uint256 lastUpdated)";
    BORROWER_LOANS = "function borrowerLoans(address borrower, uint256 index) view returns (uint256)";
    SUPPORTED_TOKENS = "function supportedTokens(uint256 id) view returns (uint8 tokenType, address contractAddress, string symbol, uint8 decimals, bool isActive, address priceFeed)";
}

/// Entries of a borrower's list that are asked for at once: most have fewer.
const LIST_WINDOW: u64 = 32;

/// A block that reads are pinned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Head {
    /// Its number.
    pub number: u64,
    /// Its time, in Unix seconds: the contract's clock.
    pub timestamp: u64,
}

/// How a loan's token is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asset {
    /// As the value of the transaction.
    Eth,
    /// By allowance of this contract.
    Erc20(Address),
}

/// The contract at one address.
#[derive(Clone, Debug)]
pub struct ContractClient {
    provider: Provider,
    address: Address,
}

impl ContractClient {
    /// The contract at `address`, read through `provider`.
    pub fn new(provider: Provider, address: Address) -> Self {
        Self { provider, address }
    }

    /// Where the contract is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// The newest block.
    ///
    /// # Errors
    /// The node failed.
    pub async fn head(&self) -> Result<Head, ContractError> {
        let head = self.provider.head().await.map_err(ContractError::Chain)?;
        Ok(Head { number: head.number, timestamp: head.timestamp })
    }

    /// Loans have the ids from 1 to the one before this.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn next_loan_id(&self, at: Head) -> Result<u64, ContractError> {
        self.count(&NEXT_LOAN_ID, "nextLoanId", at).await
    }

    /// Tokens have the ids from 0 to the one before this.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn next_token_id(&self, at: Head) -> Result<u64, ContractError> {
        self.count(&NEXT_TOKEN_ID, "nextTokenId", at).await
    }

    async fn count(
        &self,
        function: &Arc<Function>,
        name: &'static str,
        at: Head,
    ) -> Result<u64, ContractError> {
        let values = self.read(function, Vec::new(), at).await?;
        let next = values.into_iter().next().and_then(Token::into_uint);
        let next = next.and_then(|next| u64::try_from(next).ok());
        next.ok_or(ContractError::NotTheContract(name))
    }

    /// The loans with these ids, in their order, each with its own result.
    pub async fn loans(
        &self,
        ids: impl IntoIterator<Item = u64>,
        at: Head,
    ) -> Vec<Result<Loan, ContractError>> {
        let calls = ids.into_iter().map(|id| self.call(&LOANS, vec![uint(id)])).collect();
        let answers = self.provider.read_many(calls, Block::Number(at.number)).await;
        answers
            .into_iter()
            .map(|answer| {
                let tokens = answer.map_err(ContractError::Chain)?;
                Loan::from_tokens(tokens).ok_or(ContractError::NotTheContract("loans"))
            })
            .collect()
    }

    /// What both sides of each loan are worth, in the order of `loans`, or why that cannot be known.
    pub async fn usd_values(&self, loans: &[&Loan], at: Head) -> Vec<Result<UsdValues, String>> {
        let sides = loans.iter().flat_map(|loan| {
            [(loan.token_id, loan.amount), (loan.collateral_token_id, loan.collateral_amount)]
        });
        let calls =
            sides.map(|(token, amount)| self.call(&USD_VALUE, vec![Token::Uint(token), Token::Uint(amount)]));
        let answers = self.provider.read_many(calls.collect(), Block::Number(at.number)).await;
        let mut values = answers.into_iter().map(usd_value);
        let mut side = |name| {
            let missing = || Err("no answer".to_owned());
            values.next().unwrap_or_else(missing).map_err(|reason| format!("{name}: {reason}"))
        };
        loans
            .iter()
            .map(|_| {
                let (loan, collateral) = (side("value of the loan"), side("value of the collateral"));
                Ok(UsdValues { loan: loan?, collateral: collateral? })
            })
            .collect()
    }

    /// What sums of tokens are worth in USD with 8 decimals, in the order of `sums`: within, why the contract gives no
    /// value; without, that the node failed.
    pub async fn worth(
        &self,
        sums: &[(U256, U256)],
        at: Head,
    ) -> Vec<Result<Result<U256, String>, ContractError>> {
        let calls = sums
            .iter()
            .map(|(token, amount)| self.call(&USD_VALUE, vec![Token::Uint(*token), Token::Uint(*amount)]));
        let answers = self.provider.read_many(calls.collect(), Block::Number(at.number)).await;
        let worth = answers.into_iter().map(|answer| match answer {
            Err(cause) if cause.is_unavailable() => Err(ContractError::Chain(cause)),
            answer => Ok(usd_value(answer)),
        });
        worth.collect()
    }

    /// The contract's own account of a borrower.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn credit_record(&self, borrower: Address, at: Head) -> Result<CreditRecord, ContractError> {
        let values = self.read(&CREDIT_SCORES, vec![Token::Address(borrower)], at).await?;
        CreditRecord::from_tokens(values).ok_or(ContractError::NotTheContract("creditScores"))
    }

    /// Ids of a borrower's loans, of which there are at most `limit`.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn loans_of(&self, borrower: Address, limit: u64, at: Head) -> Result<Vec<u64>, ContractError> {
        const NOT_OURS: ContractError = ContractError::NotTheContract("borrowerLoans");
        let mut ids = Vec::new();
        let mut window = 0..LIST_WINDOW.min(limit);
        while !window.is_empty() {
            let calls = window
                .clone()
                .map(|index| self.call(&BORROWER_LOANS, vec![Token::Address(borrower), uint(index)]));
            let answers = self.provider.read_many(calls.collect(), Block::Number(at.number)).await;
            for answer in answers {
                match answer {
                    Ok(values) => {
                        let id = values.into_iter().next().and_then(Token::into_uint);
                        ids.push(id.and_then(|id| u64::try_from(id).ok()).ok_or(NOT_OURS)?);
                    }
                    // An array's getter has no other way to say that this is its end.
                    Err(ChainError::Reverted { .. }) => return Ok(ids),
                    Err(cause) => return Err(ContractError::Chain(cause)),
                }
            }
            let end = window.end;
            window = end..end.saturating_mul(4).min(limit);
        }
        Ok(ids)
    }

    /// The tokens with these ids, in their order, each with its own result.
    pub async fn tokens(
        &self,
        ids: impl IntoIterator<Item = u64>,
        at: Head,
    ) -> Vec<Result<SupportedToken, ContractError>> {
        let ids: Vec<_> = ids.into_iter().collect();
        let calls = ids.iter().map(|id| self.call(&SUPPORTED_TOKENS, vec![uint(*id)])).collect();
        let answers = self.provider.read_many(calls, Block::Number(at.number)).await;
        ids.into_iter()
            .zip(answers)
            .map(|(id, answer)| {
                let tokens = answer.map_err(ContractError::Chain)?;
                SupportedToken::from_tokens(id, tokens)
                    .ok_or(ContractError::NotTheContract("supportedTokens"))
            })
            .collect()
    }

    /// Ids of the loans that wait for lenders.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn active_requests(&self, at: Head) -> Result<Vec<u64>, ContractError> {
        let values = self.read(&ACTIVE_REQUESTS, Vec::new(), at).await?;
        let ids = values.into_iter().next().and_then(Token::into_array);
        let ids = ids.and_then(|ids| {
            ids.into_iter().map(|id| u64::try_from(id.into_uint()?).ok()).collect::<Option<Vec<_>>>()
        });
        ids.ok_or(ContractError::NotTheContract("getActiveLoanRequests"))
    }

    /// How a token is paid.
    ///
    /// # Errors
    /// The node failed or the address is not the contract's.
    pub async fn asset(&self, token: U256, at: Head) -> Result<Asset, ContractError> {
        let values = self.read(&SUPPORTED_TOKENS, vec![Token::Uint(token)], at).await?;
        let mut values = values.into_iter();
        let kind = values.next().and_then(Token::into_uint);
        let address = values.next().and_then(Token::into_address);
        match (kind.map(|kind| kind.low_u64()), address) {
            (Some(0), _) => Ok(Asset::Eth),
            (Some(1), Some(address)) => Ok(Asset::Erc20(address)),
            _ => Err(ContractError::NotTheContract("supportedTokens")),
        }
    }

    async fn read(
        &self,
        function: &Arc<Function>,
        args: Vec<Token>,
        at: Head,
    ) -> Result<Vec<Token>, ContractError> {
        let call = self.call(function, args);
        self.provider.call(&call, Block::Number(at.number)).await.map_err(ContractError::Chain)
    }

    fn call(&self, function: &Arc<Function>, args: Vec<Token>) -> Call {
        Call::new(self.address, function, args)
    }
}

fn uint(number: u64) -> Token {
    Token::Uint(number.into())
}

fn usd_value(answer: Result<Vec<Token>, ChainError>) -> Result<U256, String> {
    let values =
        answer.map_err(|cause| price_refusal(&cause).map_or_else(|| cause.to_string(), str::to_owned))?;
    values.into_iter().next().and_then(Token::into_uint).ok_or_else(|| "not a number".to_owned())
}

/// The contract's own words for a price that it does not give.
fn price_refusal(cause: &ChainError) -> Option<&'static str> {
    let ChainError::Reverted { data, .. } = cause else { return None };
    let thrown = |signature: &str| data.starts_with(&keccak(signature.as_bytes()).as_bytes()[..4]);
    if thrown("StalePrice(uint256,uint256)") {
        Some("the price is stale")
    } else if thrown("BadPrice(uint256)") {
        Some("the price feed has no usable price")
    } else {
        None
    }
}
