//! A loan as the contract keeps it, and as the API shows it.

use pools_core::chain::{Address, Token, U256, checksummed};
use serde_json::{Map, Value, json};

/// Seconds after the due date before the contract lets a loan be liquidated.
const GRACE: u64 = 30;

/// Where a loan stands; the contract's `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Waiting for lenders.
    Requested,
    /// Too few lenders came in time.
    FundingFailed,
    /// Paid out.
    Funded,
    /// Paid back.
    Repaid,
    /// Liquidated.
    Defaulted,
    /// Withdrawn by the borrower.
    Cancelled,
    /// Paid out; lenders vote on an extension.
    Voting,
}

impl Status {
    fn from_code(code: U256) -> Option<Self> {
        let all = [
            Self::Requested,
            Self::FundingFailed,
            Self::Funded,
            Self::Repaid,
            Self::Defaulted,
            Self::Cancelled,
            Self::Voting,
        ];
        all.get(usize::try_from(code).ok()?).copied()
    }

    /// The name shown beside the number.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::FundingFailed => "funding_failed",
            Self::Funded => "funded",
            Self::Repaid => "repaid",
            Self::Defaulted => "defaulted",
            Self::Cancelled => "cancelled",
            Self::Voting => "voting",
        }
    }

    /// Whether money is out, so that the loan can fall due.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Funded | Self::Voting)
    }
}

/// One loan; fields and units are the contract's.
#[derive(Clone, Debug, PartialEq)]
pub struct Loan {
    /// From 1.
    pub id: U256,
    /// Who borrowed.
    pub borrower: Address,
    /// What was borrowed.
    pub token_id: U256,
    /// What was pledged.
    pub collateral_token_id: U256,
    /// In the token's base unit.
    pub amount: U256,
    /// In the token's base unit.
    pub amount_funded: U256,
    /// In the collateral's base unit.
    pub collateral_amount: U256,
    /// Basis points.
    pub interest_rate: U256,
    /// Seconds.
    pub duration: U256,
    /// In the token's base unit.
    pub min_contribution: U256,
    /// Unix seconds.
    pub funding_deadline: U256,
    /// Unix seconds.
    pub created_at: U256,
    /// Unix seconds; 0 before.
    pub funded_at: U256,
    /// Unix seconds; 0 before the loan is funded.
    pub due_date: U256,
    /// Where it stands.
    pub status: Status,
    /// CID of the borrower's document.
    pub ipfs_document_hash: String,
    /// 0..1000.
    pub risk_score: U256,
    /// Percent of the loan that the collateral must be worth.
    pub liquidation_threshold: U256,
    /// In the token's base unit.
    pub total_repaid: U256,
    /// Basis points.
    pub early_repayment_penalty: U256,
}

impl Loan {
    /// From the twenty values of `loans(uint256)`. `None` when they are not such values.
    pub fn from_tokens(tokens: Vec<Token>) -> Option<Self> {
        let mut values = tokens.into_iter();
        let mut next = || values.next();
        Some(Self {
            id: next()?.into_uint()?,
            borrower: next()?.into_address()?,
            token_id: next()?.into_uint()?,
            collateral_token_id: next()?.into_uint()?,
            amount: next()?.into_uint()?,
            amount_funded: next()?.into_uint()?,
            collateral_amount: next()?.into_uint()?,
            interest_rate: next()?.into_uint()?,
            duration: next()?.into_uint()?,
            min_contribution: next()?.into_uint()?,
            funding_deadline: next()?.into_uint()?,
            created_at: next()?.into_uint()?,
            funded_at: next()?.into_uint()?,
            due_date: next()?.into_uint()?,
            status: Status::from_code(next()?.into_uint()?)?,
            ipfs_document_hash: next()?.into_string()?,
            risk_score: next()?.into_uint()?,
            liquidation_threshold: next()?.into_uint()?,
            total_repaid: next()?.into_uint()?,
            early_repayment_penalty: next()?.into_uint()?,
        })
    }

    /// Whether the contract would take the loan as overdue at block time `now`.
    pub fn is_past_due(&self, now: u64) -> bool {
        self.status.is_running() && U256::from(now) > self.due_date.saturating_add(GRACE.into())
    }

    /// Amount and interest, less what was paid back. `None` on overflow, which no real loan reaches.
    pub fn debt(&self) -> Option<U256> {
        let interest = self.amount.checked_mul(self.interest_rate)? / 10_000;
        Some(self.amount.checked_add(interest)?.saturating_sub(self.total_repaid))
    }

    /// The loan as JSON at block time `now`; `values` are what loan and collateral are worth, or why that cannot
    /// be known.
    pub fn to_json(&self, now: u64, values: Result<&UsdValues, &str>) -> Value {
        let mut body = self.fields();
        body.insert("statusName".to_owned(), json!(self.status.name()));
        body.insert("isPastDue".to_owned(), json!(self.is_past_due(now)));
        let ratio = values.and_then(|values| values.collateral_percent().ok_or("the loan is worth nothing"));
        body.insert("collateralRatio".to_owned(), json!(ratio.ok()));
        if let Err(reason) = ratio {
            body.insert("collateralRatioReason".to_owned(), json!(reason));
        }
        Value::Object(body)
    }

    fn fields(&self) -> Map<String, Value> {
        let text = |number: &U256| json!(number.to_string());
        let fields = [
            ("id", text(&self.id)),
            ("borrower", json!(checksummed(self.borrower))),
            ("tokenId", text(&self.token_id)),
            ("collateralTokenId", text(&self.collateral_token_id)),
            ("amount", text(&self.amount)),
            ("amountFunded", text(&self.amount_funded)),
            ("collateralAmount", text(&self.collateral_amount)),
            ("interestRate", text(&self.interest_rate)),
            ("duration", text(&self.duration)),
            ("minContribution", text(&self.min_contribution)),
            ("fundingDeadline", text(&self.funding_deadline)),
            ("createdAt", text(&self.created_at)),
            ("fundedAt", text(&self.funded_at)),
            ("dueDate", text(&self.due_date)),
            ("status", json!(self.status as u8)),
            ("ipfsDocumentHash", json!(self.ipfs_document_hash)),
            ("riskScore", text(&self.risk_score)),
            ("liquidationThreshold", text(&self.liquidation_threshold)),
            ("totalRepaid", text(&self.total_repaid)),
            ("earlyRepaymentPenalty", text(&self.early_repayment_penalty)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// A token that can be lent or pledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportedToken {
    id: u64,
    kind: u64,
    address: Address,
    symbol: String,
    decimals: u64,
    is_active: bool,
    price_feed: Address,
}

impl SupportedToken {
    /// From the six values of `supportedTokens(uint256)`. `None` when they are not such values.
    pub fn from_tokens(id: u64, tokens: Vec<Token>) -> Option<Self> {
        let mut values = tokens.into_iter();
        let mut next = || values.next();
        Some(Self {
            id,
            kind: u64::try_from(next()?.into_uint()?).ok()?,
            address: next()?.into_address()?,
            symbol: next()?.into_string()?,
            decimals: u64::try_from(next()?.into_uint()?).ok()?,
            is_active: next()?.into_bool()?,
            price_feed: next()?.into_address()?,
        })
    }

    /// Fields by the contract's names. ETH has no contract of its own.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "tokenType": self.kind,
            "contractAddress": checksummed(self.address),
            "symbol": self.symbol,
            "decimals": self.decimals,
            "isActive": self.is_active,
            "priceFeed": checksummed(self.price_feed),
        })
    }
}

/// What both sides of a loan are worth, in USD with 8 decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsdValues {
    /// The amount lent.
    pub loan: U256,
    /// The collateral.
    pub collateral: U256,
}

impl UsdValues {
    /// The collateral in percent of the loan, to two decimals. `None` for a loan worth nothing.
    pub fn collateral_percent(&self) -> Option<f64> {
        let basis_points = self.collateral.checked_mul(10_000.into())?.checked_div(self.loan)?;
        let basis_points = u32::try_from(basis_points).unwrap_or(u32::MAX);
        Some(f64::from(basis_points) / 100.0)
    }

    /// Whether the collateral is worth less than `threshold` percent of the loan.
    pub fn is_under(&self, threshold: U256) -> bool {
        self.collateral.saturating_mul(100.into()) < self.loan.saturating_mul(threshold)
    }
}
