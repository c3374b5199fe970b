// stompjs connects again by itself after the broker was restarted, and goes on where it was.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run, say } from './client.mjs';

await run(async (run) => {
  const client = await Client.connect(run, { reconnectDelay: 50 });
  await client.subscribe('/queue/journey', { ack: 'client-individual' });
  for (const body of ['m1', 'm2', 'm3']) {
    await client.send('/queue/journey', body, { persistent: 'true' });
  }
  const first = await client.message();
  assert.deepEqual(await client.bodies(2), ['m2', 'm3']);
  await client.ack(first);
  say('restart the broker');

  await client.connected.take();
  await client.subscribe('/queue/journey', { ack: 'client-individual' });
  for (const body of ['m2', 'm3']) {
    const message = await client.message();
    assert.deepEqual([message.body, message.headers.redelivered], [body, 'true']);
    await client.ack(message);
  }
  await client.send('/queue/journey', 'm4', { persistent: 'true' });
  const message = await client.message();
  assert.equal(message.body, 'm4');
  await client.ack(message);
  await client.disconnect();
  await assertEmpty(run, '/queue/journey');
});
