// Browses a backlog and tells each message's number.

import { Client, run, say } from './client.mjs';

await run(async (run) => {
  const browser = await Client.connect(run);
  await browser.subscribe('/queue/backlog', { browser: 'true' });
  let message;
  while ((message = await browser.message()).headers.browser === undefined) {
    say(message.body.split(' ', 1)[0]);
  }
  await browser.unsubscribe();
  await browser.disconnect();
});
