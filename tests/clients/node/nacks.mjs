// NACK: a dead letter at once, or first redelivered where the broker has a policy for the queue.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run } from './client.mjs';

const TRIED = '/queue/tried.again';

await run(async (run) => {
  const client = await Client.connect(run);
  await client.subscribe('/queue/ActiveMQ.DLQ', { ack: 'client-individual', id: 'dead' });
  await client.subscribe('/queue/refused', { ack: 'client-individual', id: 'refused' });
  await client.send('/queue/refused', 'poison', { persistent: 'true', colour: 'red' });
  const message = await client.message();
  await client.nack(message);
  let dead = await client.message();
  assert.equal(dead.headers.subscription, 'dead');
  assert.equal(dead.body, 'poison');
  assert.equal(dead.headers.colour, 'red');
  assert.equal(dead.headers['message-id'], message.headers['message-id']);
  assert.equal(dead.headers['original-destination'], '/queue/refused');
  assert.ok(dead.headers.dlqDeliveryFailureCause, dead.toString());
  await client.ack(dead);

  // The broker is started with a policy for this queue that allows two redeliveries.
  await client.subscribe(TRIED, { ack: 'client-individual', id: 'tried' });
  await client.send(TRIED, 'poison', { persistent: 'true' });
  for (const attempt of [1, 2, 3]) {
    const tried = await client.message();
    assert.equal(tried.headers.subscription, 'tried');
    assert.equal(tried.headers.JMSXDeliveryCount, `${attempt}`);
    assert.equal(tried.headers.redelivered, attempt > 1 ? 'true' : 'false');
    await client.nack(tried);
  }
  dead = await client.message();
  assert.equal(dead.headers.subscription, 'dead');
  assert.equal(dead.headers['original-destination'], TRIED);
  await client.ack(dead);
  await client.disconnect();
  for (const queue of ['/queue/refused', TRIED, '/queue/ActiveMQ.DLQ']) {
    await assertEmpty(run, queue);
  }
});
