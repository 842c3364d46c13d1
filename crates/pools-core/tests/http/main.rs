//! Behaviours of the http pool against real servers.
