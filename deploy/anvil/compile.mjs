// Compiles contracts/*.sol into artifacts.json, which is checked in so that running needs no compiler.
//
//   npm ci && npm run compile     writes artifacts.json
//   npm ci && npm run check       fails when artifacts.json is not what the sources compile to
//
// The same sources give the same bytes everywhere: the compiler is pinned by package-lock.json, source names are
// relative, and the bytecode carries no hash of its metadata.

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import solc from "solc";

const here = new URL("./", import.meta.url);
const artifactsFile = new URL("artifacts.json", here);
const command = "npm ci && npm run compile";
const deployed = ["Loanverse", "PriceFeed", "TestToken"];

// Of Shanghai, so that chains older than Cancun run it too. viaIR because `loans` returns 20 values, more than the
// stack reaches otherwise.
const settings = {
  optimizer: { enabled: true, runs: 200 },
  viaIR: true,
  evmVersion: "shanghai",
  metadata: { bytecodeHash: "none", appendCBOR: false },
  outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
};

function sources() {
  const folder = new URL("contracts/", here);
  const names = readdirSync(folder).filter((name) => name.endsWith(".sol")).sort();
  return Object.fromEntries(names.map((name) => [name, { content: readFileSync(new URL(name, folder), "utf8") }]));
}

function compile() {
  const input = { language: "Solidity", sources: sources(), settings };
  const output = JSON.parse(solc.compile(JSON.stringify(input)));
  const messages = output.errors ?? [];
  for (const message of messages) console.error(message.formattedMessage);
  if (messages.length > 0) process.exit(1); // Warnings too.
  const contracts = deployed.map((name) => {
    const { abi, evm } = output.contracts[`${name}.sol`][name];
    return [name, { abi, bytecode: `0x${evm.bytecode.object}` }];
  });
  return { compiler: `solc ${solc.version()}`, command, contracts: Object.fromEntries(contracts) };
}

function checkedIn() {
  try {
    return readFileSync(artifactsFile, "utf8");
  } catch {
    return "";
  }
}

const fresh = `${JSON.stringify(compile(), null, 2)}\n`;
if (!process.argv.includes("--check")) {
  writeFileSync(artifactsFile, fresh);
  console.log("artifacts.json written");
} else if (checkedIn() === fresh) {
  console.log("artifacts.json is what the sources compile to");
} else {
  console.error("artifacts.json is not what the sources compile to: run `npm run compile` in deploy/anvil");
  process.exit(1);
}
