// Higher priorities first, and the order of sending within one.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

await run(async (run) => {
  const client = await Client.connect(run);
  for (const [number, priority] of [4, 9, 0, 5, 9, 4, 1, 0, 7].entries()) {
    await client.send('/queue/ranked', `${priority}-${number}`, { persistent: 'true', priority: `${priority}` });
  }
  await client.send('/queue/ranked', '4-default', { persistent: 'true' });
  await client.subscribe('/queue/ranked');
  const expected = ['9-1', '9-4', '7-8', '5-3', '4-0', '4-5', '4-default', '1-6', '0-2', '0-7'];
  assert.deepEqual(await client.bodies(expected.length), expected);
  await client.disconnect();
});
