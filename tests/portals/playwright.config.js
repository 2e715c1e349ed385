// How the portal suite runs: as the browser suite does, whose modules it also uses.

import browserSuite from '../browser/playwright.config.js';

export default {
  ...browserSuite,
  testDir: 'specs',
  // JupyterLab takes its time on a machine that has other things to do.
  expect: { timeout: 30_000 },
  use: { ...browserSuite.use, actionTimeout: 30_000, navigationTimeout: 40_000 },
};
