// Reads requests with llhttp as Node's HTTP server does, strictly. Takes a length of four bytes and so many bytes of one
// request each time; tells on a line what it read, or why it is not exactly one request.

'use strict';

const { HTTPParser, methods, allMethods } = process.binding('http_parser');

const known = allMethods ?? methods;

let buffer = Buffer.alloc(0);
process.stdin.on('data', (data) => {
  buffer = Buffer.concat([buffer, data]);
  while (buffer.length >= 4 && buffer.length >= 4 + buffer.readUInt32BE(0)) {
    const end = 4 + buffer.readUInt32BE(0);
    process.stdout.write(`${JSON.stringify(read(buffer.subarray(4, end)))}\n`);
    buffer = buffer.subarray(end);
  }
});

function read(bytes) {
  const parser = new HTTPParser();
  parser.initialize(HTTPParser.REQUEST, {}, 1 << 20, 0);
  const requests = [];
  let fields = [];
  const body = [];
  let complete = 0;
  parser[HTTPParser.kOnHeaders | 0] = (more, target) => {
    fields.push(...more);
    requests.early = (requests.early ?? '') + target;
  };
  parser[HTTPParser.kOnHeadersComplete | 0] = (major, minor, more, method, target) => {
    const all = [...fields, ...(more ?? [])];
    fields = [];
    requests.push({ method: known[method], target: (requests.early ?? '') + (target ?? ''), fields: pairs(all) });
    return 0;
  };
  parser[HTTPParser.kOnBody | 0] = (part) => body.push(Buffer.from(part));
  parser[HTTPParser.kOnMessageComplete | 0] = () => {
    complete += 1;
  };
  const consumed = parser.execute(bytes);
  if (consumed instanceof Error) {
    return { refused: consumed.reason ?? String(consumed) };
  }
  // A request that offers an upgrade ends the reading behind its head.
  if (requests.length !== 1 || complete !== 1) {
    return { began: requests.length, ended: complete, consumed };
  }
  return { ...requests[0], body: Buffer.concat(body).toString('hex') };
}

function pairs(list) {
  const all = [];
  for (let at = 0; at < list.length; at += 2) {
    all.push([list[at].toLowerCase(), Buffer.from(list[at + 1], 'latin1').toString('hex')]);
  }
  // Stable: the order within a name stays.
  return all.sort((one, other) => (one[0] < other[0] ? -1 : one[0] > other[0] ? 1 : 0));
}
