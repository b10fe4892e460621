/** Many forwarders in one process: `node forwarders.js ADDRESS PORT COUNT`, f1 at PORT and so on, each with every interface. */
import { HEARTBEAT_MS } from '../../src/base/limits.js';
import { silent } from '../../src/base/log.js';
import { Forwarder } from '../../src/forwarder/forwarder.js';
import { ANY_PROTOCOL } from '../../src/packet/protocol-address.js';

const [address = '', port = '', count = ''] = process.argv.slice(2);
const names = Array.from({ length: Number(count) }, (_, index) => `f${index + 1}`);
await Promise.all(
  names.map((name, index) => {
    const url = `ws://${address}:${Number(port) + index}`;
    return new Forwarder(
      {
        name,
        listen: [{ kind: 'tcp', secure: false, host: address, port: Number(port) + index, url }],
        tls: null,
        tokens: new Map(),
        insecure: true,
        heartbeat: HEARTBEAT_MS,
        interfaces: new Map([['*', { unmatched: 'host', host: [] }]]),
        permissions: [{ control: '*', interface: '*', rights: ['read', 'write', 'inject'], protocols: [ANY_PROTOCOL] }],
      },
      silent,
    ).start();
  }),
);
process.stdout.write('ready\n');
setInterval(() => undefined, 1e6);
