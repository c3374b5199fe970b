// Browsing shows what lies in a queue, with a consumer or waiting, and leaves it as it was.

import assert from 'node:assert/strict';
import { Client, assertEmpty, run } from './client.mjs';

const QUEUE = '/queue/browsed';

/** What a browser is shown, up to the end. */
async function browse(run, headers = {}) {
  const browser = await Client.connect(run);
  await browser.subscribe(QUEUE, { ...headers, browser: 'true' });
  const shown = [];
  let message = await browser.message();
  for (; message.headers.browser === undefined; message = await browser.message()) {
    shown.push(message);
  }
  assert.equal(message.headers.browser, 'end');
  assert.deepEqual([message.headers.subscription, message.headers.destination, message.body], ['1', QUEUE, '']);
  if (shown.length > 0 && (headers.ack ?? 'auto') !== 'auto') {
    await browser.ack(shown[0]); // nothing comes of it
  }
  await browser.unsubscribe();
  await browser.disconnect();
  return shown.map((message) => message.body);
}

await run(async (run) => {
  assert.deepEqual(await browse(run), []);
  const producer = await Client.connect(run);
  for (const [body, priority] of [['m1', '4'], ['m2', '9'], ['m3', '4'], ['m4', '0']]) {
    await producer.send(QUEUE, body, { persistent: 'true', priority });
  }
  await producer.send(QUEUE, 'm5', { persistent: 'false' });

  const consumer = await Client.connect(run);
  await consumer.subscribe(QUEUE, { ack: 'client-individual', 'activemq.prefetchSize': '1' });
  let message = await consumer.message();
  const everything = ['m2', 'm1', 'm3', 'm5', 'm4'];
  for (const ack of ['auto', 'client', 'client-individual']) {
    assert.deepEqual(await browse(run, { ack }), everything);
  }
  assert.deepEqual(await browse(run, { 'activemq.prefetchSize': '1' }), everything);

  for (const body of everything) {
    assert.deepEqual([message.body, message.headers.redelivered ?? 'false'], [body, 'false']);
    await consumer.ack(message);
    message = body === 'm4' ? undefined : await consumer.message();
  }
  await consumer.disconnect();
  await producer.disconnect();
  assert.deepEqual(await browse(run), []);
  await assertEmpty(run, QUEUE);
});
