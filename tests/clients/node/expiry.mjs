// What expires goes to the dead letters, its own expiry cleared; what does not, arrives.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

await run(async (run) => {
  const client = await Client.connect(run);
  await client.subscribe('/queue/ActiveMQ.DLQ', { ack: 'client-individual', id: 'dead' });
  const soon = Date.now() + 300;
  const later = soon + 3_600_000;
  await client.send('/queue/perishable', 'short', { persistent: 'true', expires: `${soon}` });
  await client.send('/queue/perishable', 'long', { persistent: 'true', expires: `${later}` });
  const dead = await client.message();
  assert.equal(dead.headers.subscription, 'dead');
  assert.equal(dead.body, 'short');
  assert.equal(dead.headers.expires ?? '0', '0');
  assert.equal(dead.headers['original-destination'], '/queue/perishable');
  assert.match(dead.headers.dlqDeliveryFailureCause, /expired/i);
  await client.ack(dead);
  await client.subscribe('/queue/perishable', { ack: 'client-individual', id: 'rest' });
  const message = await client.message();
  assert.equal(message.body, 'long');
  assert.equal(message.headers.expires, `${later}`);
  await client.ack(message);
  await client.disconnect();
});
