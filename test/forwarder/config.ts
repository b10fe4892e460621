import t from 'tap';
import { FwdfsError } from '../../src/base/errors.js';
import type { ForwarderConfig } from '../../src/forwarder/config.js';
import { interfaceConfig, loadForwarderConfig, parseListenAddress } from '../../src/forwarder/config.js';

const HASH = '0123456789abcdef'.repeat(4);

const FULL = `name: fwd1
listen: ws://127.0.0.1:7440            # a list is allowed
tls: { cert: fwd1.pem, key: /etc/fwd1.key, ca: ../ca.pem }
tokens: { ctl1: sha256:${HASH.toUpperCase()} }
insecure: false
interfaces:
  eth0: { unmatched: discard, host: [icmp, "tcp:22", "udp:33434-33534"] }
  eth1:
  eth2: { unmatched: host }
permissions:
  - { control: ctl1, interface: eth0, rights: [read, write, inject, vif, vip, route], protocols: ["*"] }
  - { control: 10.0.0.0/24, interface: "*", rights: [read] }
`;

type Testdir = { testdir: (files: Record<string, string>) => string };

function load(t: Testdir, text: string): ForwarderConfig {
  return loadForwarderConfig(`${t.testdir({ 'f.yaml': text })}/f.yaml`);
}

t.test('the documented file is read, with paths relative to it', async (t) => {
  const dir = t.testdir({ 'f.yaml': FULL });
  const config = loadForwarderConfig(`${dir}/f.yaml`);
  t.equal(config.name, 'fwd1');
  t.same(config.listen, [{ kind: 'tcp', secure: false, host: '127.0.0.1', port: 7440, url: 'ws://127.0.0.1:7440' }]);
  t.equal(config.tls?.cert, `${dir}/fwd1.pem`);
  t.equal(config.tls?.key, '/etc/fwd1.key');
  t.equal(config.tls?.ca, `${dir.slice(0, dir.lastIndexOf('/'))}/ca.pem`);
  t.same([...config.tokens], [['ctl1', HASH]]);
  t.equal(config.insecure, false);
  t.same([...config.interfaces.keys()], ['eth0', 'eth1', 'eth2']);
  const texts = (name: string): string[] => (interfaceConfig(config, name)?.host ?? []).map(({ text }) => text);
  t.same(texts('eth0'), ['icmp', 'tcp:22', 'udp:33434-33534']);
  t.same(interfaceConfig(config, 'eth1'), { unmatched: 'discard', host: [] });
  t.same(interfaceConfig(config, 'eth2'), { unmatched: 'host', host: [] });
  t.match(config.permissions, [
    { control: 'ctl1', interface: 'eth0', rights: ['read', 'write', 'inject', 'vif', 'vip', 'route'] },
    { control: '10.0.0.0/24', interface: '*', rights: ['read'], protocols: [{ text: '*' }] },
  ]);
});

t.test('a file of two lines has the defaults: nothing is offered, nothing permitted, nobody trusted', async (t) => {
  t.same(load(t, 'name: f\nlisten: ws://[::1]:0\n'), {
    name: 'f',
    listen: [{ kind: 'tcp', secure: false, host: '::1', port: 0, url: 'ws://[::1]:0' }],
    tls: null,
    tokens: new Map(),
    insecure: false,
    heartbeat: 250,
    interfaces: new Map(),
    permissions: [],
  });
});

t.test('interfaces are those that are named, and with an asterisk all others', async (t) => {
  const head = 'name: f\nlisten: ws://h:1\ninterfaces:\n';
  const named = load(t, `${head}  eth0: { unmatched: host }\n`);
  t.equal(interfaceConfig(named, 'eth1'), null);
  t.equal(interfaceConfig(named, '*'), null);
  const all = load(t, `${head}  "*": { host: [icmp] }\n  eth0: { unmatched: host }\n`);
  t.match(interfaceConfig(all, 'eth0'), { unmatched: 'host', host: [] });
  t.match(interfaceConfig(all, 'eth1'), { unmatched: 'discard', host: [{ text: 'icmp' }] });
  t.match(interfaceConfig(all, 'lo'), { unmatched: 'host' }, 'lo is discarded on only by name');
  t.match(interfaceConfig(load(t, `${head}  lo: {}\n`), 'lo'), { unmatched: 'discard' });
});

t.test('an address to listen on is a WebSocket URL with host and port, or a path', async (t) => {
  // With the URL to listen at: `*` is an address there, and nothing stands behind the port.
  const good: [url: string, address: object, listenAt?: string][] = [
    ['ws://127.0.0.1:7440', { kind: 'tcp', secure: false, host: '127.0.0.1', port: 7440 }],
    ['wss://fwd.example:443/', { kind: 'tcp', secure: true, host: 'fwd.example', port: 443 }, 'wss://fwd.example:443'],
    ['ws://[2001:db8::1]:80', { kind: 'tcp', secure: false, host: '2001:db8::1', port: 80 }],
    ['ws://*:1', { kind: 'tcp', secure: false, host: '::', port: 1 }, 'ws://[::]:1'],
    ['ws+unix:/run/fwdfs/fwd1.sock', { kind: 'unix', path: '/run/fwdfs/fwd1.sock' }],
  ];
  for (const [url, address, listenAt = url] of good) t.same(parseListenAddress(url), { ...address, url: listenAt });
  const bad = ['', 'ws://h', 'ws://h:65536', 'ws://h:01', 'ws://:1', 'http://h:1', 'ws://h:1/path', 'ws+unix:run/x'];
  for (const url of [...bad, 'ws+unix:/a:b', 'l2://eth1', 'ws://u@h:1', '7440']) {
    t.equal(parseListenAddress(url), null, url);
  }
});

t.test('every mistake is told with the line and what was expected', async (t) => {
  // The mistake stands after two lines that are right, unless it begins the file.
  const head = 'name: f\nlisten: ws://h:1\n';
  const permission = (line: string): string => `${head}permissions:\n  - control: a\n    interface: eth0\n${line}`;
  const mistakes: [text: string, line: number, what: RegExp][] = [
    ['listen: ws://h:1', 1, /expected string, it is missing \(name\)/],
    ['name: f', 1, /expected ws:\/\/HOST:PORT, .*it is missing \(listen\)/],
    ['name: .hidden\nlisten: ws://h:1', 1, /expected a name .* \(name\)/],
    ['name: f\nlisten: h:1', 2, /expected ws:\/\/HOST:PORT, .* \(listen\[0\]\)/],
    ['name: f\nlisten:\n  - ws://h:1\n  - l2://eth1', 4, /expected ws:\/\/HOST:PORT, .* \(listen\[1\]\)/],
    ['name: f\nlisten: []', 2, /expected at least one \(listen\)/],
    ['name: f\nlisten: wss://h:1', 2, /expected tls: \{ cert, key \} in this file, for wss:\/\/ \(listen\)/],
    [`${head}tls: { cert: a }`, 3, /expected string, it is missing \(tls\.key\)/],
    [`${head}tls:\n  cert: a\n  key: ""`, 5, /expected a path \(tls\.key\)/],
    [`${head}tls:\n  cert: a\n  key: b\n  crl: c`, 6, /unknown key crl \(tls\)/],
    [`${head}tokens:\n  a: sha256:12`, 4, /expected sha256: and 64 hex digits \(tokens\.a\)/],
    [`${head}tokens:\n  uid:0: sha256:${HASH}`, 4, /expected a name .* \(tokens\.uid:0\)/],
    [`${head}heartbeat: 10`, 3, /expected milliseconds, 50 to 60000 \(heartbeat\)/],
    [`${head}heartbeat: 1s`, 3, /expected milliseconds, 50 to 60000 \(heartbeat\)/],
    [`${head}insecure: yes`, 3, /expected boolean, received string \(insecure\)/],
    [`${head}vifs: []`, 3, /unknown key vifs/],
    [`${head}interfaces: [eth0]`, 3, /expected map, received list \(interfaces\)/],
    [`${head}interfaces:\n  eth0: discard`, 4, /expected map, received string \(interfaces\.eth0\)/],
    [`${head}interfaces:\n  eth0:\n    unmatched: drop`, 5, /expected discard or host \(interfaces\.eth0\.unmatched\)/],
    [`${head}interfaces:\n  eth0:\n    hosts: []`, 5, /unknown key hosts \(interfaces\.eth0\)/],
    [`${head}interfaces:\n  eth0:\n    host: icmp`, 5, /expected list, received string \(interfaces\.eth0\.host\)/],
    [
      `${head}interfaces:\n  eth0:\n    host:\n      - icmp\n      - tcp:0`,
      7,
      /expected a protocol address, "tcp:0" .*host\[1\]/,
    ],
    [`${head}interfaces:\n  eth0:\n  a/b:`, 5, /expected the name of an interface .* \(interfaces\.a\/b\)/],
    [`${head}interfaces:\n  eth*:`, 4, /expected the name of an interface/],
    [`${head}interfaces:\n  sixteencharacter:`, 4, /expected the name of an interface/],
    [permission('    rights: [read, wirte]'), 6, /expected one of read, write, .* \(permissions\[0\]\.rights\[1\]\)/],
    [permission('    rights: read'), 6, /expected list, received string/],
    [permission(''), 4, /expected list, it is missing \(permissions\[0\]\.rights\)/],
    [permission('    rights: []\n    protocols: [tcp, tpc]'), 7, /"tpc" .* \(permissions\[0\]\.protocols\[1\]\)/],
    [permission('    rights: []\n    protocol: [tcp]'), 7, /unknown key protocol \(permissions\[0\]\)/],
  ];
  for (const control of [
    '10.0.0.0/33',
    '10.0.0.256',
    'uid:root',
    'uid:0',
    'uid:',
    '02:00:00:00:00:01',
    'a b',
    '::/129',
    '',
  ]) {
    mistakes.push([
      `${head}permissions:\n  - { interface: a, rights: [],\n      control: "${control}" }`,
      5,
      /expected the name of a/,
    ]);
  }
  for (const [text, line, what] of mistakes) {
    let told: unknown;
    try {
      load(t, text);
    } catch (error) {
      told = error;
    }
    t.ok(told instanceof FwdfsError && told.code === 'bad-config', JSON.stringify(text));
    const message = told instanceof FwdfsError ? told.what : '';
    t.match(message, what);
    t.equal(/f\.yaml:([0-9]+): /.exec(message)?.[1], String(line), message);
  }
});
