// node-pg's pool. One JSON request per line, one JSON answer per line; see postgres.py.
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const FIND = { name: 'find', text: 'SELECT balance, owner FROM accounts WHERE id = $1' };

async function find(pool, id) {
  const { rows } = await pool.query({ ...FIND, values: [id] });
  // node-pg gives an int8 as text, since a double cannot hold each.
  return [Number(rows[0].balance), rows[0].owner];
}

// A closed loop, as src/load.rs.
async function tally(pool, { tasks, warm_up, seconds }) {
  let phase = 'warming';
  const took = Array.from({ length: tasks }, () => []);
  let longest = 0;
  const work = async (task) => {
    for (let number = task; ; number += 61) {
      const key = (number % 1000) + 1;
      const started = performance.now();
      const [balance] = await find(pool, key);
      if (balance !== key * 7) throw new Error(`account ${key} has ${balance}`);
      const millis = performance.now() - started;
      if (phase !== 'warming') longest = Math.max(longest, millis);
      if (phase === 'counting') took[task].push(millis);
      else if (phase === 'over') return;
    }
  };
  const all = Promise.all(took.map((_, task) => work(task)));
  await Promise.race([sleep(warm_up * 1e3), all]);
  phase = 'counting';
  const started = performance.now();
  const cpu = process.cpuUsage();
  await Promise.race([sleep(seconds * 1e3), all]);
  phase = 'over';
  const measured = (performance.now() - started) / 1e3;
  const { user, system } = process.cpuUsage(cpu);
  await all;
  const sorted = took.flat().sort((a, b) => a - b);
  if (sorted.length === 0) throw new Error('not one operation ended in time');
  return {
    seconds: measured,
    served: took.map((one) => one.length),
    p50: sorted[Math.floor(sorted.length / 2)],
    p99: sorted[Math.floor(sorted.length * 0.99)],
    longest,
    cpu_seconds: (user + system) / 1e6,
  };
}

async function answer(request) {
  const pool = new pg.Pool({ connectionString: request.url, max: 30 });
  try {
    if (request.do === 'run') return await tally(pool, request);
    const accounts = [];
    for (const id of request.ids) accounts.push(await find(pool, id));
    return { accounts };
  } catch (error) {
    return { error: String(error) };
  } finally {
    await pool.end();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
