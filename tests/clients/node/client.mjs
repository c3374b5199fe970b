// What the scenarios share: a stompjs client over TCP whose frames wait in queues until a scenario asks for them.
//
// A scenario is run as `node NAME.mjs --address HOST:PORT --version 1.2`. It asserts, and ends with 0 if all held.
// It waits for events; `PATIENCE` is only the net below.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import net from 'node:net';
import tls from 'node:tls';
import { parseArgs } from 'node:util';

// Installed by tests/run, outside the folders of the sources.
const { Client: Stomp, Versions } = createRequire(new URL('../../../.tests/node/', import.meta.url))('@stomp/stompjs');

export const PATIENCE = 60_000;

const MARKER = 'marker';

/** What stompjs expects of a WebSocket, over a TCP or TLS socket. */
class TcpSocket {
  constructor(options) {
    this.readyState = 0;
    const { host, port, ca } = options;
    const opened = () => {
      this.readyState = 1;
      this.onopen?.({});
    };
    this.socket = ca === undefined ? net.connect({ host, port }, opened) : tls.connect({ host, port, ca }, opened);
    this.socket.setNoDelay(true);
    this.socket.on('data', (chunk) => this.onmessage?.({ data: new Uint8Array(chunk).buffer }));
    this.socket.on('error', (error) => this.onerror?.(error));
    this.socket.on('close', () => {
      this.readyState = 3;
      this.onclose?.({ code: 1000, reason: 'closed', wasClean: true });
    });
  }

  send(data) {
    this.socket.write(typeof data === 'string' ? data : new Uint8Array(data));
  }

  close() {
    this.readyState = 2;
    this.socket.end();
  }

  terminate() {
    this.socket.destroy();
  }
}

/** What arrives, in order, for whoever waits. */
class Queue {
  constructor(name) {
    this.name = name;
    this.items = [];
    this.waiting = [];
  }

  put(item) {
    const first = this.waiting.shift();
    if (first === undefined) {
      this.items.push(item);
    } else {
      first(item);
    }
  }

  async take() {
    if (this.items.length > 0) {
      return this.items.shift();
    }
    return patient(new Promise((resolve) => this.waiting.push(resolve)), this.name);
  }
}

async function patient(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited too long for ${what}`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** One connection. Bodies stay bytes. */
export class Client {
  /** A client that is connected. `options` go to stompjs; those of the connection come from the command line. */
  static async connect(run, options = {}) {
    const client = new Client(run, options);
    client.stomp.activate();
    await client.connected.take();
    return client;
  }

  constructor(run, options) {
    this.connected = new Queue('CONNECTED');
    this.lost = new Queue('the end of the connection');
    this.messages = new Queue('MESSAGE');
    this.errors = new Queue('ERROR');
    this.receipts = [];
    this.number = 0;
    this.stomp = new Stomp({
      webSocketFactory: () => new TcpSocket(run),
      stompVersions: new Versions([run.version]),
      forceBinaryWSFrames: true,
      reconnectDelay: 0,
      heartbeatIncoming: 0,
      heartbeatOutgoing: 0,
      onConnect: (frame) => this.connected.put(frame),
      onStompError: (frame) => this.errors.put(frame),
      onWebSocketClose: () => this.lost.put(null),
      ...options,
    });
  }

  /** Calls `act` with a new receipt and waits for it; an ERROR instead fails. */
  async confirmed(act) {
    const receipt = `r${++this.number}`;
    const confirmed = new Promise((resolve) => this.stomp.watchForReceipt(receipt, resolve));
    act(receipt);
    const refused = new Promise((_, reject) => {
      const onStompError = (frame) => reject(new Error(`an ERROR instead of receipt ${receipt}: ${frame}`));
      this.stomp.onStompError = (frame) => (onStompError(frame), this.errors.put(frame));
    });
    refused.catch(() => {});
    await patient(Promise.race([confirmed, refused]), `receipt ${receipt}`);
  }

  async send(destination, body, headers = {}) {
    await this.confirmed((receipt) => this.sendUnconfirmed(destination, body, { ...headers, receipt }));
  }

  sendUnconfirmed(destination, body, headers = {}) {
    const binaryBody = typeof body === 'string' ? new TextEncoder().encode(body) : body;
    this.stomp.publish({ destination, binaryBody, headers });
  }

  async subscribe(destination, headers = {}) {
    await this.confirmed((receipt) => {
      const all = { id: '1', ...headers, receipt };
      this.subscription = this.stomp.subscribe(destination, (message) => this.messages.put(message), all);
    });
  }

  async unsubscribe(headers = {}) {
    await this.confirmed((receipt) => this.stomp.unsubscribe('1', { ...headers, receipt }));
  }

  async message() {
    return this.messages.take();
  }

  async bodies(count) {
    const bodies = [];
    while (bodies.length < count) {
      bodies.push((await this.message()).body);
    }
    return bodies;
  }

  async ack(message, headers = {}) {
    await this.confirmed((receipt) => message.ack({ ...headers, receipt }));
  }

  async nack(message, headers = {}) {
    await this.confirmed((receipt) => message.nack({ ...headers, receipt }));
  }

  async begin(transaction) {
    // stompjs' own begin() takes no headers, so the next confirmed frame speaks for it.
    return this.stomp.begin(transaction);
  }

  async commit(transaction) {
    transaction.commit();
    await this.settled();
  }

  async abort(transaction) {
    transaction.abort();
    await this.settled();
  }

  /** Waits until everything sent so far was seen to: receipts come in the order of their frames. */
  async settled() {
    const topic = '/topic/settled';
    await this.confirmed((receipt) => this.sendUnconfirmed(topic, 'now', { receipt }));
  }

  /** Says goodbye and waits until that is confirmed. */
  async disconnect() {
    await patient(this.stomp.deactivate(), 'the receipt of DISCONNECT');
  }

  /** Ends the connection without a word. */
  async drop() {
    this.stomp.forceDisconnect();
    await this.stomp.deactivate({ force: true });
  }
}

/** Nothing is left in the queue: a marker sent now is what a new consumer gets first. */
export async function assertEmpty(run, destination) {
  const client = await Client.connect(run);
  await client.send(destination, MARKER);
  await client.subscribe(destination);
  const first = await client.message();
  assert.equal(first.body, MARKER, `${destination} still holds ${first}`);
  await client.disconnect();
}

export function say(line) {
  process.stdout.write(`${line}\n`);
}

/** Runs one scenario with the arguments of the command line. */
export async function run(scenario) {
  const { values } = parseArgs({
    options: { address: { type: 'string' }, version: { type: 'string', default: '1.2' }, ca: { type: 'string' } },
  });
  const [host, port] = values.address.split(':');
  const ca = values.ca === undefined ? undefined : fs.readFileSync(values.ca);
  await scenario({ host, port: Number(port), version: values.version, ca });
  say('ok');
}
