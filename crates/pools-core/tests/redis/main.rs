//! Behaviours of the redis pool against real servers.
