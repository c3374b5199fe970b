// Heart-beats both ways keep an idle connection alive.

import assert from 'node:assert/strict';
import { Client, run } from './client.mjs';

await run(async (run) => {
  let beats = 0;
  let enough;
  const fiveBeats = new Promise((resolve) => (enough = resolve));
  const client = await Client.connect(run, {
    heartbeatIncoming: 600,
    heartbeatOutgoing: 600,
    heartbeatToleranceMultiplier: 3,
    // stompjs tells of a heart-beat only here.
    debug: (text) => {
      if (text === '<<< PONG' && ++beats === 5) {
        enough();
      }
    },
  });
  let lost = false;
  client.stomp.onWebSocketClose = () => (lost = true);
  await fiveBeats;
  assert.equal(lost, false);
  await client.subscribe('/queue/beats');
  await client.send('/queue/beats', 'alive');
  assert.deepEqual(await client.bodies(1), ['alive']);
  await client.disconnect();
});
