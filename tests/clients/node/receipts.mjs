// A thousand receipts come in order; and one receipt, only at DISCONNECT, speaks for a thousand sends.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

const NAMES = Array.from({ length: 1000 }, (_, number) => `n${number}`);

await run(async (run) => {
  let client = await Client.connect(run);
  const receipts = [];
  const all = new Promise((resolve) => {
    client.stomp.onUnhandledReceipt = (frame) => {
      if (receipts.push(frame.headers['receipt-id']) === NAMES.length) {
        resolve();
      }
    };
  });
  for (const name of NAMES) {
    client.sendUnconfirmed('/queue/receipts', name, { persistent: 'true', receipt: name });
  }
  await all;
  assert.deepEqual(receipts, NAMES);
  await client.subscribe('/queue/receipts');
  assert.deepEqual(await client.bodies(NAMES.length), NAMES);

  for (const name of NAMES) {
    client.sendUnconfirmed('/queue/goodbye', name, { persistent: 'true' });
  }
  await client.disconnect();
  client = await Client.connect(run);
  await client.subscribe('/queue/goodbye');
  assert.deepEqual(await client.bodies(NAMES.length), NAMES);
  await client.disconnect();
});
