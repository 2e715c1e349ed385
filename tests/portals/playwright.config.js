// How the portal suite runs: as the browser suite does, whose modules it also uses.

import browserSuite from '../browser/playwright.config.js';

export default { ...browserSuite, testDir: 'specs' };
