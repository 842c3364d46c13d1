// Exit code 0 when the node on this machine answers as the development chain.
const call = { jsonrpc: '2.0', id: 1, method: 'eth_chainId', params: [] };
const answer = await fetch('http://127.0.0.1:8545', {
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(call),
  signal: AbortSignal.timeout(2_000),
});
process.exit((await answer.json()).result === '0x7a69' ? 0 : 1);
