// Transactions over sends and acks: whole or not at all.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run } from './client.mjs';

async function sends(run) {
  const producer = await Client.connect(run);
  const consumer = await Client.connect(run);
  await consumer.subscribe('/queue/sends');
  const kept = await producer.begin('kept');
  const dropped = await producer.begin('dropped');
  await producer.send('/queue/sends', 'k1', { persistent: 'true', transaction: kept.id });
  await producer.send('/queue/sends', 'd1', { persistent: 'true', transaction: dropped.id });
  await producer.send('/queue/sends', 'k2', { persistent: 'true', transaction: kept.id });
  await producer.send('/queue/sends', 'plain', { persistent: 'true' });
  assert.deepEqual(await consumer.bodies(1), ['plain']);
  await producer.abort(dropped);
  await producer.commit(kept);
  assert.deepEqual(await consumer.bodies(2), ['k1', 'k2']);
  const lost = await producer.begin('lost');
  await producer.send('/queue/sends', 'l1', { persistent: 'true', transaction: lost.id });
  await producer.disconnect();
  await consumer.disconnect();
  await assertEmpty(run, '/queue/sends');
}

async function acks(run) {
  let client = await Client.connect(run);
  for (const body of ['a1', 'a2', 'a3']) {
    await client.send('/queue/acks', body, { persistent: 'true' });
  }
  const take = async (count) => {
    await client.subscribe('/queue/acks', { ack: 'client-individual' });
    const messages = [];
    while (messages.length < count) {
      messages.push(await client.message());
    }
    return messages;
  };
  let messages = await take(3);
  let transaction = await client.begin('t1');
  await client.ack(messages[0], { transaction: 't1' });
  await client.ack(messages[1], { transaction: 't1' });
  await client.abort(transaction);
  await client.disconnect();

  client = await Client.connect(run);
  messages = await take(3);
  assert.deepEqual(messages.map((message) => message.body), ['a1', 'a2', 'a3']);
  transaction = await client.begin('t2');
  await client.ack(messages[0], { transaction: 't2' });
  await client.ack(messages[2], { transaction: 't2' });
  await client.send('/queue/results', 'result', { persistent: 'true', transaction: 't2' });
  await client.commit(transaction);
  await client.disconnect();

  client = await Client.connect(run);
  messages = await take(1);
  assert.equal(messages[0].body, 'a2');
  await client.ack(messages[0]);
  await client.disconnect();
  await assertEmpty(run, '/queue/acks');

  client = await Client.connect(run);
  await client.subscribe('/queue/results');
  assert.deepEqual(await client.bodies(1), ['result']);
  await client.disconnect();
}

await run(async (run) => {
  await sends(run);
  await acks(run);
});
