// Durable topic subscriptions: they keep what comes while their client is away, until they are deleted.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

const NAME = { 'activemq.subscriptionName': 'reader' };
const TOPIC = '/topic/news';

await run(async (run) => {
  const connect = () => Client.connect(run, { connectHeaders: { 'client-id': 'reader' } });
  const publisher = await Client.connect(run);
  const publish = (body) => publisher.send(TOPIC, body, { persistent: 'true' });
  const take = async (reader, body) => {
    const message = await reader.message();
    assert.equal(message.body, body);
    await reader.ack(message);
  };
  const subscribe = (reader) => reader.subscribe(TOPIC, { ack: 'client-individual', ...NAME });

  let reader = await connect();
  await subscribe(reader);
  await publish('n1');
  await take(reader, 'n1');
  await reader.disconnect();
  await publish('n2');
  await publish('n3');

  reader = await connect();
  await subscribe(reader);
  await take(reader, 'n2');
  await reader.drop();
  reader = await connect();
  await subscribe(reader);
  await take(reader, 'n3');
  await reader.disconnect();

  // As ActiveMQ wants it: deleted by name while it is not in use.
  reader = await connect();
  await reader.unsubscribe(NAME);
  await publish('n4');
  await subscribe(reader);
  await publish('n5');
  await take(reader, 'n5');
  await reader.disconnect();
  await publisher.disconnect();
});
