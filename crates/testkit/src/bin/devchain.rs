//! `devchain --rpc URL [--liquidator ADDRESS]`: deploys the development contract on a fresh anvil and seeds it; on a
//! seeded one it changes nothing. Progress goes to standard error, one line of JSON to standard output.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is what the program is for")]

use std::{error::Error, process::ExitCode};

use clap::{Arg, Command};
use testkit::devchain::deploy_for;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = Command::new("devchain")
        .about("Deploys and seeds the development contract on chain 31337")
        .arg(Arg::new("rpc").long("rpc").value_name("URL").required(true).help("The node's JSON-RPC address"))
        .arg(
            Arg::new("liquidator")
                .long("liquidator")
                .value_name("ADDRESS")
                .help("Gets ETH and tUSD if it has none; anvil's account 9 has them anyway"),
        );
    let arguments = command.get_matches();
    let rpc = arguments.get_one::<String>("rpc").expect("BUG: clap requires it");
    let liquidator = arguments.get_one::<String>("liquidator").map(String::as_str);
    match deploy_for(rpc, liquidator, |step| eprintln!("devchain: {step}")).await {
        Ok(deployment) => {
            println!("{}", deployment.to_json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("devchain: {error}");
            let mut next = error.source();
            while let Some(cause) = next {
                eprintln!("  {cause}");
                next = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}
