//! Behaviours of the chain pool against real servers.
