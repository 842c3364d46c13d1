// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {CreditHistory} from "./CreditHistory.sol";
import {TokenRegistry} from "./TokenRegistry.sol";

/// Peer-to-peer loans against collateral: the development stand-in for the platform's lending contract.
///
///                 cancelLoan                    repayLoan
///   Cancelled ◄───────────── Requested   ┌──────────────────► Repaid
///                              │  │      │
///   FundingFailed ◄────────────┘  └──► Funded ◄──────► Voting   (proposeExtension, voteOnExtension)
///     markFundingFailed   contributeLoan │               │
///                                        └── liquidate ──┴──► Defaulted
///
/// A loan that is voted on can be repaid and liquidated as a funded one: a vote protects nobody.
contract Loanverse is TokenRegistry, CreditHistory {
    enum Status {
        Requested,
        FundingFailed,
        Funded,
        Repaid,
        Defaulted,
        Cancelled,
        Voting
    }

    /// The order of the fields is the order in which the getter `loans` returns them.
    struct Loan {
        uint256 id;
        address borrower;
        uint256 tokenId;
        uint256 collateralTokenId;
        uint256 amount;
        uint256 amountFunded;
        uint256 collateralAmount;
        uint256 interestRate;
        uint256 duration;
        uint256 minContribution;
        uint256 fundingDeadline;
        uint256 createdAt;
        uint256 fundedAt;
        uint256 dueDate;
        Status status;
        string ipfsDocumentHash;
        uint256 riskScore;
        uint256 liquidationThreshold;
        uint256 totalRepaid;
        uint256 earlyRepaymentPenalty;
    }

    struct Extension {
        uint256 round;
        uint256 extraTime;
        uint256 approved;
        uint256 rejected;
    }

    uint256 private constant BPS = 10_000;
    /// Collateral a request must bring, in percent of the loan's value.
    uint256 public constant COLLATERAL_PERCENT = 150;
    /// Collateral below this percentage of the loan's value may be liquidated.
    uint256 public constant LIQUIDATION_PERCENT = 120;
    uint256 public constant GRACE_PERIOD = 30 seconds;
    uint256 public constant MIN_PERIOD = 1 minutes;
    uint256 public constant MAX_PERIOD = 3650 days;
    /// Payouts go to every lender in one transaction, so there must be few enough to fit into a block.
    uint256 public constant MAX_LENDERS = 100;

    uint256 public nextLoanId = 1;
    mapping(uint256 => Loan) public loans;
    mapping(address => uint256[]) public borrowerLoans;
    mapping(uint256 => mapping(address => uint256)) public contributions;
    mapping(uint256 => Extension) public extensions;
    /// The round of a loan's votes in which a lender last voted.
    mapping(uint256 => mapping(address => uint256)) public lastVotedRound;
    mapping(uint256 => address[]) private lendersOf;
    /// A loan's worth when it was funded, so that repaying it needs no price.
    mapping(uint256 => uint256) private fundedValueUSD;
    bool private entered;

    event LoanRequested(uint256 indexed loanId, address indexed borrower, uint256 tokenId, uint256 amount);
    event LoanContributed(uint256 indexed loanId, address indexed lender, uint256 amount);
    event LoanFunded(uint256 indexed loanId, uint256 dueDate);
    event LoanFundingFailed(uint256 indexed loanId);
    event LoanCancelled(uint256 indexed loanId);
    event LoanPayment(uint256 indexed loanId, uint256 amount);
    event LoanRepaid(uint256 indexed loanId);
    event ExtensionProposed(uint256 indexed loanId, uint256 extraTime);
    event ExtensionVoted(uint256 indexed loanId, address indexed lender, bool approve, uint256 weight);
    event ExtensionDecided(uint256 indexed loanId, bool approved, uint256 dueDate);
    event LoanLiquidated(uint256 indexed loanId, address indexed liquidator, uint256 debt, uint256 collateral);

    error Reentered();
    error UnknownLoan(uint256 loanId);
    error WrongStatus(uint256 loanId, Status status);
    error NotBorrower();
    error NotLender();
    error BorrowerCannotLend();
    error InvalidTerms();
    error FundingClosed(uint256 fundingDeadline);
    error FundingStillOpen(uint256 fundingDeadline);
    error InvalidContribution(uint256 amount, uint256 smallest, uint256 largest);
    error AlreadyVoted();
    error NotLiquidatable(uint256 loanId);

    modifier nonReentrant() {
        require(!entered, Reentered());
        entered = true;
        _;
        entered = false;
    }

    constructor(address ethPriceFeed) TokenRegistry(ethPriceFeed) {}

    // ---- Asking and funding ----

    /// Asks for a loan. ETH collateral is the value of the call, at least `requiredCollateral`; of an ERC-20 exactly
    /// `requiredCollateral` is taken by `transferFrom`.
    function requestLoan(
        uint256 tokenId,
        uint256 collateralTokenId,
        uint256 amount,
        uint256 interestRate,
        uint256 duration,
        uint256 minContribution,
        uint256 fundingPeriod,
        uint256 earlyRepaymentPenalty,
        string calldata ipfsHash
    ) external payable nonReentrant {
        _requireActive(tokenId);
        _requireActive(collateralTokenId);
        require(amount > 0 && interestRate <= BPS && earlyRepaymentPenalty <= BPS, InvalidTerms());
        require(minContribution > 0 && minContribution <= amount, InvalidTerms());
        require(amount / minContribution < MAX_LENDERS, InvalidTerms());
        _requirePeriod(duration);
        _requirePeriod(fundingPeriod);

        uint256 loanId = nextLoanId++;
        Loan storage loan = loans[loanId];
        loan.id = loanId;
        loan.borrower = msg.sender;
        loan.tokenId = tokenId;
        loan.collateralTokenId = collateralTokenId;
        loan.amount = amount;
        loan.interestRate = interestRate;
        loan.duration = duration;
        loan.minContribution = minContribution;
        loan.fundingDeadline = block.timestamp + fundingPeriod;
        loan.createdAt = block.timestamp;
        loan.ipfsDocumentHash = ipfsHash;
        loan.riskScore = _riskScore(msg.sender);
        loan.liquidationThreshold = LIQUIDATION_PERCENT;
        loan.earlyRepaymentPenalty = earlyRepaymentPenalty;
        borrowerLoans[msg.sender].push(loanId);

        _takeCollateral(loan);
        emit LoanRequested(loanId, msg.sender, tokenId, amount);
    }

    /// How much collateral a loan needs, in the collateral's base unit, rounded up.
    function requiredCollateral(uint256 tokenId, uint256 amount, uint256 collateralTokenId)
        public
        view
        returns (uint256)
    {
        uint256 price = _price(collateralTokenId);
        uint256 unit = 10 ** supportedTokens[collateralTokenId].decimals;
        uint256 needed = calculateUSDValue(tokenId, amount) * COLLATERAL_PERCENT * unit;
        return (needed + 100 * price - 1) / (100 * price);
    }

    /// Lends `amount` to a request. The last contribution may be smaller than `minContribution`; the one that fills the
    /// loan starts its duration and pays the borrower.
    function contributeLoan(uint256 loanId, uint256 amount) external payable nonReentrant {
        Loan storage loan = _loanIn(loanId, Status.Requested);
        require(msg.sender != loan.borrower, BorrowerCannotLend());
        require(block.timestamp <= loan.fundingDeadline, FundingClosed(loan.fundingDeadline));
        uint256 missing = loan.amount - loan.amountFunded;
        uint256 smallest = loan.minContribution < missing ? loan.minContribution : missing;
        require(amount >= smallest && amount <= missing, InvalidContribution(amount, smallest, missing));

        if (contributions[loanId][msg.sender] == 0) lendersOf[loanId].push(msg.sender);
        contributions[loanId][msg.sender] += amount;
        loan.amountFunded += amount;
        _take(loan.tokenId, amount);
        emit LoanContributed(loanId, msg.sender, amount);
        if (loan.amountFunded == loan.amount) _start(loan);
    }

    function cancelLoan(uint256 loanId) external nonReentrant {
        Loan storage loan = _loanIn(loanId, Status.Requested);
        require(msg.sender == loan.borrower, NotBorrower());
        loan.status = Status.Cancelled;
        emit LoanCancelled(loanId);
        _unwind(loan);
    }

    /// Closes a request that was not filled in time. Anyone may call.
    function markFundingFailed(uint256 loanId) external nonReentrant {
        Loan storage loan = _loanIn(loanId, Status.Requested);
        require(block.timestamp > loan.fundingDeadline, FundingStillOpen(loan.fundingDeadline));
        loan.status = Status.FundingFailed;
        emit LoanFundingFailed(loanId);
        _unwind(loan);
    }

    // ---- Running loans ----

    /// Pays a loan back. ETH: the value of the call, where less than the debt is a part payment and what is too much
    /// comes back. ERC-20: the whole of it, by `transferFrom`. Closing a loan before its due date costs the penalty.
    function repayLoan(uint256 loanId) external payable nonReentrant {
        Loan storage loan = _runningLoan(loanId);
        require(msg.sender == loan.borrower, NotBorrower());
        uint256 debt = _debt(loan);
        bool early = block.timestamp < loan.dueDate;
        uint256 payoff = debt + (early ? (loan.amount * loan.earlyRepaymentPenalty) / BPS : 0);
        // Between the debt and the payoff nothing is accepted: it would leave a loan open that owes nothing.
        bool isPart = loan.tokenId == ETH_TOKEN && msg.value > 0 && msg.value < debt;
        uint256 payment = isPart ? msg.value : payoff;

        loan.totalRepaid += payment;
        if (!isPart) loan.status = Status.Repaid;
        _recordPayment(loan.borrower, (payment * fundedValueUSD[loanId]) / loan.amount, !isPart);
        _takeWithChange(loan.tokenId, payment);
        emit LoanPayment(loanId, payment);
        _payLenders(loan, payment);
        if (!isPart) {
            emit LoanRepaid(loanId);
            _pay(loan.collateralTokenId, loan.borrower, loan.collateralAmount);
        }
    }

    /// Pays the debt of a loan that is past due or short of collateral, and takes its collateral for it. ETH loans:
    /// at least the debt as the value of the call, the rest comes back. ERC-20 loans: the debt, by `transferFrom`.
    function liquidate(uint256 loanId) external payable nonReentrant {
        Loan storage loan = _runningLoan(loanId);
        require(_isPastDue(loan) || _isShortOfCollateral(loan), NotLiquidatable(loanId));
        uint256 debt = _debt(loan);

        loan.status = Status.Defaulted;
        _recordDefault(loan.borrower);
        _takeWithChange(loan.tokenId, debt);
        emit LoanLiquidated(loanId, msg.sender, debt, loan.collateralAmount);
        _payLenders(loan, debt);
        _pay(loan.collateralTokenId, msg.sender, loan.collateralAmount);
    }

    // ---- Voting on more time ----

    /// The borrower asks the lenders for more time.
    function proposeExtension(uint256 loanId, uint256 extraTime) external {
        Loan storage loan = _loanIn(loanId, Status.Funded);
        require(msg.sender == loan.borrower, NotBorrower());
        _requirePeriod(extraTime);
        loan.status = Status.Voting;
        extensions[loanId] = Extension(extensions[loanId].round + 1, extraTime, 0, 0);
        emit ExtensionProposed(loanId, extraTime);
    }

    /// Votes with the weight of one's contribution. More than half grants the time; half refuses it.
    function voteOnExtension(uint256 loanId, bool approve) external {
        Loan storage loan = _loanIn(loanId, Status.Voting);
        Extension storage vote = extensions[loanId];
        uint256 weight = contributions[loanId][msg.sender];
        require(weight > 0, NotLender());
        require(lastVotedRound[loanId][msg.sender] < vote.round, AlreadyVoted());

        lastVotedRound[loanId][msg.sender] = vote.round;
        if (approve) vote.approved += weight;
        else vote.rejected += weight;
        emit ExtensionVoted(loanId, msg.sender, approve, weight);

        bool granted = vote.approved * 2 > loan.amount;
        if (granted) loan.dueDate += vote.extraTime;
        if (granted || vote.rejected * 2 >= loan.amount) {
            loan.status = Status.Funded;
            emit ExtensionDecided(loanId, granted, loan.dueDate);
        }
    }

    // ---- Reading ----

    /// The requests that can still be funded, oldest first.
    function getActiveLoanRequests() external view returns (uint256[] memory) {
        uint256[] memory found = new uint256[](nextLoanId - 1);
        uint256 count = 0;
        for (uint256 id = 1; id < nextLoanId; id++) {
            bool isOpen = loans[id].status == Status.Requested && block.timestamp <= loans[id].fundingDeadline;
            if (isOpen) found[count++] = id;
        }
        uint256[] memory active = new uint256[](count);
        for (uint256 i = 0; i < count; i++) active[i] = found[i];
        return active;
    }

    /// Who lent to a loan, and how much each did.
    function getLoanLenders(uint256 loanId) external view returns (address[] memory, uint256[] memory) {
        address[] memory lenders = lendersOf[loanId];
        uint256[] memory amounts = new uint256[](lenders.length);
        for (uint256 i = 0; i < lenders.length; i++) amounts[i] = contributions[loanId][lenders[i]];
        return (lenders, amounts);
    }

    // ---- Inside ----

    function _start(Loan storage loan) private {
        loan.status = Status.Funded;
        loan.fundedAt = block.timestamp;
        loan.dueDate = block.timestamp + loan.duration;
        uint256 usdValue = calculateUSDValue(loan.tokenId, loan.amount);
        fundedValueUSD[loan.id] = usdValue;
        _recordBorrowed(loan.borrower, usdValue);
        emit LoanFunded(loan.id, loan.dueDate);
        _pay(loan.tokenId, loan.borrower, loan.amount);
    }

    /// Gives everybody back what they put into a request.
    function _unwind(Loan storage loan) private {
        address[] storage lenders = lendersOf[loan.id];
        for (uint256 i = 0; i < lenders.length; i++) {
            _pay(loan.tokenId, lenders[i], contributions[loan.id][lenders[i]]);
        }
        _pay(loan.collateralTokenId, loan.borrower, loan.collateralAmount);
    }

    /// Shares `total` out by contribution; what rounding leaves over goes to the last lender.
    function _payLenders(Loan storage loan, uint256 total) private {
        address[] storage lenders = lendersOf[loan.id];
        uint256 left = total;
        for (uint256 i = 0; i < lenders.length; i++) {
            bool isLast = i == lenders.length - 1;
            uint256 share = isLast ? left : (total * contributions[loan.id][lenders[i]]) / loan.amount;
            left -= share;
            _pay(loan.tokenId, lenders[i], share);
        }
    }

    function _takeCollateral(Loan storage loan) private {
        uint256 needed = requiredCollateral(loan.tokenId, loan.amount, loan.collateralTokenId);
        bool isEth = loan.collateralTokenId == ETH_TOKEN;
        require(!isEth || msg.value >= needed, WrongValue(msg.value, needed));
        loan.collateralAmount = isEth ? msg.value : needed;
        _take(loan.collateralTokenId, loan.collateralAmount);
    }

    /// As `_take`, but ETH on top of `amount` is change for the caller.
    function _takeWithChange(uint256 tokenId, uint256 amount) private {
        if (tokenId != ETH_TOKEN) return _take(tokenId, amount);
        require(msg.value >= amount, WrongValue(msg.value, amount));
        _pay(ETH_TOKEN, msg.sender, msg.value - amount);
    }

    function _debt(Loan storage loan) private view returns (uint256) {
        return loan.amount + (loan.amount * loan.interestRate) / BPS - loan.totalRepaid;
    }

    function _isPastDue(Loan storage loan) private view returns (bool) {
        return block.timestamp > loan.dueDate + GRACE_PERIOD;
    }

    function _isShortOfCollateral(Loan storage loan) private view returns (bool) {
        uint256 collateral = calculateUSDValue(loan.collateralTokenId, loan.collateralAmount);
        uint256 lent = calculateUSDValue(loan.tokenId, loan.amount);
        return collateral * 100 < lent * loan.liquidationThreshold;
    }

    function _requirePeriod(uint256 period) private pure {
        require(period >= MIN_PERIOD && period <= MAX_PERIOD, InvalidTerms());
    }

    function _loanIn(uint256 loanId, Status status) private view returns (Loan storage loan) {
        loan = _loan(loanId);
        require(loan.status == status, WrongStatus(loanId, loan.status));
    }

    function _runningLoan(uint256 loanId) private view returns (Loan storage loan) {
        loan = _loan(loanId);
        require(loan.status == Status.Funded || loan.status == Status.Voting, WrongStatus(loanId, loan.status));
    }

    function _loan(uint256 loanId) private view returns (Loan storage) {
        require(loanId > 0 && loanId < nextLoanId, UnknownLoan(loanId));
        return loans[loanId];
    }
}
