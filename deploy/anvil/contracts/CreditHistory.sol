// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// What each borrower has borrowed, repaid and failed to repay, and a score made of it.
///
/// Sums are USD with 8 decimals, each loan at its worth on the day it was funded. Who never had a loan funded has no
/// entry: every field is 0, the score too.
abstract contract CreditHistory {
    struct CreditScore {
        uint256 score;
        uint256 totalLoansCount;
        uint256 repaidLoansCount;
        uint256 defaultedLoansCount;
        uint256 totalBorrowed;
        uint256 totalRepaid;
        uint256 lastUpdated;
    }

    uint256 private constant LOWEST = 300;
    uint256 private constant HIGHEST = 850;
    /// Of a borrower about whom nothing is known yet.
    uint256 private constant STARTING = 600;
    uint256 private constant PER_REPAID = 20;
    uint256 private constant PER_DEFAULTED = 100;

    mapping(address => CreditScore) public creditScores;

    event CreditScoreUpdated(address indexed borrower, uint256 score);

    function _recordBorrowed(address borrower, uint256 usdValue) internal {
        CreditScore storage credit = creditScores[borrower];
        credit.totalLoansCount++;
        credit.totalBorrowed += usdValue;
        _rescore(borrower);
    }

    function _recordPayment(address borrower, uint256 usdValue, bool closesLoan) internal {
        CreditScore storage credit = creditScores[borrower];
        credit.totalRepaid += usdValue;
        if (closesLoan) credit.repaidLoansCount++;
        _rescore(borrower);
    }

    function _recordDefault(address borrower) internal {
        creditScores[borrower].defaultedLoansCount++;
        _rescore(borrower);
    }

    /// 0 (safe) to 1000: the score turned round, from 850..300.
    function _riskScore(address borrower) internal view returns (uint256) {
        CreditScore storage credit = creditScores[borrower];
        uint256 score = credit.totalLoansCount == 0 ? STARTING : credit.score;
        return ((HIGHEST - score) * 1000) / (HIGHEST - LOWEST);
    }

    function _rescore(address borrower) private {
        CreditScore storage credit = creditScores[borrower];
        uint256 earned = STARTING + PER_REPAID * credit.repaidLoansCount;
        uint256 lost = PER_DEFAULTED * credit.defaultedLoansCount;
        uint256 score = earned > lost + LOWEST ? earned - lost : LOWEST;
        credit.score = score < HIGHEST ? score : HIGHEST;
        credit.lastUpdated = block.timestamp;
        emit CreditScoreUpdated(borrower, credit.score);
    }
}
