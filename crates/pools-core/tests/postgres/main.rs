//! Behaviours of the postgres pool against real servers.
