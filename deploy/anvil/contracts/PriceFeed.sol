// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// What Loanverse reads a price from.
interface IPriceFeed {
    /// The price of one whole token in USD with 8 decimals, and when it was last known to be right.
    function latestPrice() external view returns (uint256 price, uint256 updatedAt);
}

/// A development price feed, set by hand.
///
/// A live feed says that its price is of this very block, so a chain that stays up for days never grows stale by
/// itself. A frozen feed goes on reporting the moment it was frozen at, and so ages as a feed does that nobody updates.
contract PriceFeed is IPriceFeed {
    address public immutable owner;
    string public description;
    uint256 public price;
    /// When the feed stopped; 0 while it is live.
    uint256 public frozenAt;

    event PriceSet(uint256 price);
    event Frozen(uint256 since);
    event Thawed();

    error NotOwner();

    modifier onlyOwner() {
        require(msg.sender == owner, NotOwner());
        _;
    }

    constructor(string memory feedDescription, uint256 initialPrice) {
        owner = msg.sender;
        description = feedDescription;
        price = initialPrice;
    }

    /// Zero is allowed: it is how a bad price is made.
    function setPrice(uint256 newPrice) external onlyOwner {
        price = newPrice;
        emit PriceSet(newPrice);
    }

    function freeze() external onlyOwner {
        frozenAt = block.timestamp;
        emit Frozen(block.timestamp);
    }

    function thaw() external onlyOwner {
        frozenAt = 0;
        emit Thawed();
    }

    function latestPrice() external view returns (uint256, uint256) {
        return (price, frozenAt == 0 ? block.timestamp : frozenAt);
    }

    function decimals() external pure returns (uint8) {
        return 8;
    }
}
