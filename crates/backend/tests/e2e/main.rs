//! The backend as its users meet it: the real program between real servers.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests own their tasks, fail by panic and print what they measured"
)]

mod analytics;
mod chatbot;
mod config_doc;
mod credit_score;
mod etherscan;
mod guard;
mod health_check;
mod http_rules;
mod ipfs;
mod liquidation;
mod loans;
mod matching;
mod missing;
mod ml;
mod policies;
mod pools;
mod stack;
mod start_stop;
mod wallet;
