// The three ack modes: what was acknowledged is gone, what was not comes back, in order and marked.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run } from './client.mjs';

async function sendFive(run, destination) {
  const producer = await Client.connect(run);
  for (const body of ['m1', 'm2', 'm3', 'm4', 'm5']) {
    await producer.send(destination, body, { persistent: 'true' });
  }
  await producer.disconnect();
}

async function consume(run, destination, ack, count) {
  const consumer = await Client.connect(run);
  await consumer.subscribe(destination, { ack });
  const messages = [];
  while (messages.length < count) {
    messages.push(await consumer.message());
  }
  return [consumer, messages];
}

const marks = (messages) => messages.map((message) => [message.body, message.headers.redelivered ?? 'false']);

await run(async (run) => {
  await sendFive(run, '/queue/auto');
  let [consumer, messages] = await consume(run, '/queue/auto', 'auto', 5);
  assert.deepEqual(messages.map((message) => message.body), ['m1', 'm2', 'm3', 'm4', 'm5']);
  await consumer.disconnect();
  await assertEmpty(run, '/queue/auto');

  await sendFive(run, '/queue/client');
  [consumer, messages] = await consume(run, '/queue/client', 'client', 5);
  await consumer.ack(messages[2]);
  await consumer.disconnect();
  [consumer, messages] = await consume(run, '/queue/client', 'client', 2);
  assert.deepEqual(marks(messages), [['m4', 'true'], ['m5', 'true']]);
  await consumer.ack(messages[1]);
  await consumer.disconnect();
  await assertEmpty(run, '/queue/client');

  await sendFive(run, '/queue/individual');
  [consumer, messages] = await consume(run, '/queue/individual', 'client-individual', 5);
  await consumer.ack(messages[3]);
  await consumer.ack(messages[1]);
  await consumer.drop();
  [consumer, messages] = await consume(run, '/queue/individual', 'client-individual', 3);
  assert.deepEqual(marks(messages), [['m1', 'true'], ['m3', 'true'], ['m5', 'true']]);
  for (const message of messages) {
    await consumer.ack(message);
  }
  await consumer.disconnect();
  await assertEmpty(run, '/queue/individual');
});
