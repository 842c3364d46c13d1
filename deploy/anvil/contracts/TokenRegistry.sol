// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IPriceFeed} from "./PriceFeed.sol";
import {IERC20} from "./TestToken.sol";

/// The tokens that can be lent or pledged, what they are worth, and how they move in and out of the contract.
///
/// Token 0 is ETH. Tokens are listed by the owner alone, so a token is trusted to be a plain ERC-20: one that takes a
/// fee on transfers would leave the contract short.
abstract contract TokenRegistry {
    enum TokenType {
        ETH,
        ERC20
    }

    struct Token {
        TokenType tokenType;
        address contractAddress;
        string symbol;
        uint8 decimals;
        bool isActive;
        address priceFeed;
    }

    /// A price older than this is no price.
    uint256 public constant MAX_PRICE_AGE = 1 hours;
    uint256 internal constant ETH_TOKEN = 0;
    /// Enough for a contract wallet to take ETH, too little for one recipient to use up everybody's gas.
    uint256 private constant PAYOUT_GAS = 50_000;

    address public immutable owner;
    mapping(uint256 => Token) public supportedTokens;
    uint256 public nextTokenId;
    /// ETH that its recipient refused to take; waits for `claim`.
    mapping(address => uint256) public unclaimed;

    event TokenAdded(uint256 indexed tokenId, address contractAddress, string symbol, address priceFeed);
    event TokenActiveSet(uint256 indexed tokenId, bool isActive);
    event PriceFeedSet(uint256 indexed tokenId, address priceFeed);

    error NotOwner();
    error UnknownToken(uint256 tokenId);
    error InactiveToken(uint256 tokenId);
    error BadPrice(uint256 tokenId);
    error StalePrice(uint256 tokenId, uint256 updatedAt);
    error WrongValue(uint256 sent, uint256 needed);
    error TransferFailed(uint256 tokenId);

    modifier onlyOwner() {
        require(msg.sender == owner, NotOwner());
        _;
    }

    constructor(address ethPriceFeed) {
        owner = msg.sender;
        _add(Token(TokenType.ETH, address(0), "ETH", 18, true, ethPriceFeed));
    }

    function addToken(address token, address priceFeed) external onlyOwner returns (uint256 tokenId) {
        IERC20 erc20 = IERC20(token);
        return _add(Token(TokenType.ERC20, token, erc20.symbol(), erc20.decimals(), true, priceFeed));
    }

    /// An inactive token is taken for no new loan; running loans go on.
    function setTokenActive(uint256 tokenId, bool isActive) external onlyOwner {
        _token(tokenId).isActive = isActive;
        emit TokenActiveSet(tokenId, isActive);
    }

    function setPriceFeed(uint256 tokenId, address priceFeed) external onlyOwner {
        _token(tokenId).priceFeed = priceFeed;
        emit PriceFeedSet(tokenId, priceFeed);
    }

    /// What `amount` base units are worth in USD with 8 decimals. Reverts rather than guess from an old or zero price.
    function calculateUSDValue(uint256 tokenId, uint256 amount) public view returns (uint256) {
        return (amount * _price(tokenId)) / 10 ** supportedTokens[tokenId].decimals;
    }

    /// Takes out the ETH that could not be delivered to the caller.
    function claim() external {
        uint256 amount = unclaimed[msg.sender];
        unclaimed[msg.sender] = 0;
        (bool sent,) = msg.sender.call{value: amount}("");
        require(sent, TransferFailed(ETH_TOKEN));
    }

    function _price(uint256 tokenId) internal view returns (uint256) {
        (uint256 price, uint256 updatedAt) = IPriceFeed(_token(tokenId).priceFeed).latestPrice();
        require(price > 0 && updatedAt <= block.timestamp, BadPrice(tokenId));
        require(block.timestamp - updatedAt <= MAX_PRICE_AGE, StalePrice(tokenId, updatedAt));
        return price;
    }

    /// Takes exactly `amount` from the caller: as the value of the call, or by `transferFrom`.
    function _take(uint256 tokenId, uint256 amount) internal {
        bool isEth = tokenId == ETH_TOKEN;
        require(msg.value == (isEth ? amount : 0), WrongValue(msg.value, isEth ? amount : 0));
        if (!isEth) {
            IERC20 erc20 = IERC20(supportedTokens[tokenId].contractAddress);
            require(erc20.transferFrom(msg.sender, address(this), amount), TransferFailed(tokenId));
        }
    }

    /// Pays `amount` out. ETH that is refused is kept for its recipient: one lender cannot block a liquidation.
    function _pay(uint256 tokenId, address to, uint256 amount) internal {
        if (amount == 0) return;
        if (tokenId == ETH_TOKEN) {
            (bool sent,) = to.call{value: amount, gas: PAYOUT_GAS}("");
            if (!sent) unclaimed[to] += amount;
        } else {
            IERC20 erc20 = IERC20(supportedTokens[tokenId].contractAddress);
            require(erc20.transfer(to, amount), TransferFailed(tokenId));
        }
    }

    function _requireActive(uint256 tokenId) internal view {
        require(_token(tokenId).isActive, InactiveToken(tokenId));
    }

    function _token(uint256 tokenId) private view returns (Token storage) {
        require(tokenId < nextTokenId, UnknownToken(tokenId));
        return supportedTokens[tokenId];
    }

    function _add(Token memory token) private returns (uint256 tokenId) {
        tokenId = nextTokenId++;
        supportedTokens[tokenId] = token;
        emit TokenAdded(tokenId, token.contractAddress, token.symbol, token.priceFeed);
    }
}
