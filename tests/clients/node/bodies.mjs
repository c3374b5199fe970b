// Bodies and headers arrive as they were sent.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

await run(async (run) => {
  const client = await Client.connect(run);
  await client.subscribe('/queue/bodies', { ack: 'client-individual' });
  const text = new TextEncoder();
  const every = Uint8Array.from({ length: 4096 }, (_, index) => index % 256);
  const bodies = [[], [0], [97, 0, 98, 0], every, text.encode('žluťoučký 🐎'), text.encode('x'.repeat(200_000))];
  for (const bytes of bodies) {
    const body = Uint8Array.from(bytes);
    await client.send('/queue/bodies', body, { persistent: 'true' });
    const message = await client.message();
    assert.deepEqual(Buffer.from(message.binaryBody), Buffer.from(body));
    await client.ack(message);
  }

  const values = { plain: 'value', unicode: 'žluťoučký 🐎' };
  const expected = { ...values };
  if (run.version === '1.2') {
    const escaped = { colon: 'a:b::c', newline: 'a\nb', return: 'a\rb\r\n', backslash: 'a\\b', all: ':\\\n:' };
    Object.assign(values, escaped);
    Object.assign(expected, escaped);
  } else {
    // stompjs escapes nothing in 1.1, neither way: the broker takes a bare colon, and gives it back escaped.
    values.colon = 'a:b::c';
    expected.colon = 'a\\cb\\c\\cc';
  }
  await client.send('/queue/bodies', 'headers', values);
  const message = await client.message();
  for (const [name, value] of Object.entries(expected)) {
    assert.equal(message.headers[name], value, name);
  }
  await client.ack(message);
  await client.disconnect();
});
