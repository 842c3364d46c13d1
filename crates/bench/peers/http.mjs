// undici's Pool, or axios with Node's agent. One JSON order per line, one JSON answer per line; see src/http/client.
//
//   node http.mjs undici|axios <the authority's certificate>
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

const [kind, authority] = process.argv.slice(2);
const ca = readFileSync(authority, 'utf8');

const SUBJECTS = {
  // HTTP/2 has to be asked for, and each connection carries 100 requests only if told so.
  async undici(url, cold) {
    const { Pool } = await import('undici');
    const limits = cold ? { allowH2: true, connections: 1, pipelining: 100 } : { connections: 50 };
    const pool = new Pool(url, { ...limits, connect: { ca } });
    const get = async () => {
      const { statusCode, body } = await pool.request({ path: '/', method: 'GET' });
      return [statusCode, await body.text()];
    };
    return { get, close: () => pool.destroy() };
  },
  // With Node's own number of free sockets (256): with ten, fifty callers dial all the time.
  async axios(url) {
    const { default: axios } = await import('axios');
    const options = { keepAlive: true, keepAliveMsecs: 30_000, maxSockets: 50, timeout: 60_000, scheduling: 'lifo' };
    const httpAgent = new http.Agent(options);
    const httpsAgent = new https.Agent({ ...options, ca });
    // As bytes, so that it parses nothing.
    const client = axios.create({ httpAgent, httpsAgent, proxy: false, responseType: 'arraybuffer' });
    const get = async () => {
      const { status, data } = await client.get(url);
      return [status, data.toString()];
    };
    const close = () => {
      httpAgent.destroy();
      httpsAgent.destroy();
    };
    return { get, close };
  },
};

async function expect(subject, body) {
  const [status, found] = await subject.get();
  if (status !== 200 || found !== body) throw new Error(`${status}: ${found}`);
}

// A closed loop, as src/load.rs.
async function load(subject, { tasks, warm_up, seconds, body }) {
  let phase = 'warming';
  const took = Array.from({ length: tasks }, () => []);
  let longest = 0;
  const work = async (task) => {
    for (;;) {
      const started = performance.now();
      await expect(subject, body);
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

async function errors(subject, { tasks, requests, body }) {
  let taken = 0;
  const failed = [];
  const work = async () => {
    for (let number = taken++; number < requests; number = taken++) {
      await sleep(((number * 7919) % 20001) / 1e3);
      await expect(subject, body).catch((error) => failed.push(String(error)));
    }
  };
  await Promise.all(Array.from({ length: tasks }, work));
  return { requests, errors: failed.length, first: failed[0] };
}

async function answer(order) {
  const subject = await SUBJECTS[kind](order.url, order.do === 'cold');
  try {
    if (order.do === 'load') return await load(subject, order);
    if (order.do === 'errors') return await errors(subject, order);
    if (order.do === 'cold') {
      await Promise.all(Array.from({ length: order.tasks }, () => expect(subject, order.body)));
      return { answered: order.tasks };
    }
    const [answers, millis] = [[], []];
    for (let number = 0; number < order.count; number++) {
      const started = performance.now();
      answers.push(await subject.get());
      millis.push(performance.now() - started);
    }
    return { answers, millis };
  } catch (error) {
    return { error: String(error) };
  } finally {
    await subject.close();
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
