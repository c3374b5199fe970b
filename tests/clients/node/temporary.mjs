// Temporary destinations: request and reply between two connections.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

await run(async (run) => {
  for (const kind of ['queue', 'topic']) {
    const asker = await Client.connect(run);
    const worker = await Client.connect(run);
    const mine = `/temp-${kind}/replies`;
    await worker.subscribe('/queue/requests', { ack: 'client-individual' });
    await asker.subscribe(mine, { id: 'replies' });
    for (const number of [0, 1, 2]) {
      const headers = { 'reply-to': mine, 'correlation-id': `c${number}` };
      await asker.send('/queue/requests', `q${number}`, headers);
    }
    for (const number of [0, 1, 2]) {
      const request = await worker.message();
      assert.equal(request.body, `q${number}`);
      const replyTo = request.headers['reply-to'];
      assert.ok(replyTo.startsWith(`/remote-temp-${kind}/`), replyTo);
      await worker.send(replyTo, `a${number}`, { 'correlation-id': request.headers['correlation-id'] });
      await worker.ack(request);
    }
    for (const number of [0, 1, 2]) {
      const reply = await asker.message();
      assert.equal(reply.body, `a${number}`);
      assert.equal(reply.headers['correlation-id'], `c${number}`);
      assert.equal(reply.headers.subscription, 'replies');
    }
    await asker.disconnect();
    await worker.disconnect();
  }
});
