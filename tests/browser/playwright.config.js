// How the browser suite runs. Which browser, which gateway and which portal a test gets is told in support/world.js.

import { defineConfig } from '@playwright/test';

export default defineConfig({
  testDir: 'specs',
  // Tests of one file share a gateway and some of them kill it, hence one file a worker at a time.
  fullyParallel: false,
  workers: Number(process.env.BROWSER_TESTS_WORKERS ?? 2),
  // A test that only passes at the second try has found something.
  retries: 0,
  forbidOnly: true,
  // Codes live for 30 seconds, and some tests have to wait for the next one more than once.
  timeout: 180_000,
  expect: { timeout: 10_000 },
  reporter: [['list'], ['json', { outputFile: 'artefacts/results.json' }]],
  outputDir: 'artefacts/failures',
  preserveOutput: 'failures-only',
  use: { screenshot: 'only-on-failure', actionTimeout: 15_000, navigationTimeout: 20_000 },
});
