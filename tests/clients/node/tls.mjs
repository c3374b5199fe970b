// The same over TLS: messages there and back, the broker's certificate checked.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run } from './client.mjs';

await run(async (run) => {
  const client = await Client.connect(run);
  await client.subscribe('/queue/secret', { ack: 'client-individual' });
  for (const body of ['whisper', 'x'.repeat(300_000)]) {
    await client.send('/queue/secret', body, { persistent: 'true' });
    const message = await client.message();
    assert.equal(message.body, body);
    await client.ack(message);
  }
  await client.drop();
  await assertEmpty(run, '/queue/secret');
});
