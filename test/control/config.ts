import t from 'tap';
import { hostname } from 'node:os';
import { FwdfsError } from '../../src/base/errors.js';
import {
  defaultControlName,
  isShortForm,
  loadControlConfig,
  loadSource,
  parseSource,
} from '../../src/control/config.js';

/** What stands before the advice of the error. */
function mistakeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof FwdfsError && (error.code === 'bad-config' || error.code === 'bad-source')) return error.what;
    throw error;
  }
  return 'none';
}

const remote = (url: string, more: object = {}): object => {
  return { kind: 'remote', url, token: null, tokenFile: null, tls: null, ...more };
};

t.test('the documented file is read, with paths relative to it', async (t) => {
  const text = `name: ctl1
forwarders:
  fwd1: { url: "ws://127.0.0.1:7440", token: secret, tls: { cert: a.pem, key: /k.pem } }
  fwd2: { url: wss://fwd2.example/, token_file: tok, tls: { ca: ca.pem } }
  fwd3: { url: ws+unix:/run/fwdfs/fwd3.sock }
  here: { local: forwarder.yaml }
`;
  const dir = t.testdir({ 'c.yaml': text });
  const config = loadSource(`${dir}/c.yaml`);
  t.equal(config.name, 'ctl1');
  t.same(Object.fromEntries(config.forwarders), {
    fwd1: remote('ws://127.0.0.1:7440', { token: 'secret', tls: { cert: `${dir}/a.pem`, key: '/k.pem', ca: null } }),
    fwd2: remote('wss://fwd2.example', {
      tokenFile: `${dir}/tok`,
      tls: { cert: null, key: null, ca: `${dir}/ca.pem` },
    }),
    fwd3: remote('ws+unix:/run/fwdfs/fwd3.sock'),
    here: { kind: 'local', file: `${dir}/forwarder.yaml` },
  });
});

t.test('a control device has the name of its host unless told', async (t) => {
  const dir = t.testdir({ 'c.yaml': '{}' });
  t.same(loadControlConfig(`${dir}/c.yaml`), {
    name: defaultControlName(hostname()),
    weight: 1,
    forwarders: new Map(),
    vifs: [],
    vips: [],
  });
  const names: [host: string, name: string][] = [
    ['web-1.example.org', 'web-1.example.org'],
    ['büro rechner', 'b-ro-rechner'],
    ['..x', 'x'],
    ['', 'control'],
    ['a'.repeat(70), 'a'.repeat(64)],
  ];
  for (const [host, name] of names) t.equal(defaultControlName(host), name);
});

t.test('every mistake is told with the line and what was expected', async (t) => {
  const mistakes: [text: string, line: number, what: RegExp][] = [
    ['', 1, /expected map, received null/],
    ['name: a/b', 1, /expected a name .* \(name\)/],
    ['name: c\nforwarders:\n  - fwd1', 3, /expected map, received list \(forwarders\)/],
    ['name: c\nroutes: []', 2, /unknown key routes/],
    ['forwarders:\n  .a: { url: ws://h }', 2, /expected a name .* \(forwarders\.\.a\)/],
    ['forwarders:\n  a: ws://h', 2, /expected map, received string \(forwarders\.a\)/],
    ['forwarders:\n  a:', 2, /expected map, received null \(forwarders\.a\)/],
    ['forwarders:\n  a: {}', 2, /expected either url or local \(forwarders\.a\)/],
    ['forwarders:\n  a:\n    url: ws://h\n    local: f', 3, /expected either url or local \(forwarders\.a\)/],
    ['forwarders:\n  a:\n    url: h:7440', 3, /expected ws:\/\/HOST\[:PORT\], .* \(forwarders\.a\.url\)/],
    ['forwarders:\n  a:\n    url: ws://h:99999', 3, /expected ws:\/\/HOST\[:PORT\]/],
    ['forwarders:\n  a:\n    url: ws://h/path', 3, /expected ws:\/\/HOST\[:PORT\]/],
    ['forwarders:\n  a:\n    local: f\n    token: x', 3, /expected nothing beside local \(forwarders\.a\)/],
    [
      'forwarders:\n  a:\n    url: ws://h\n    token: 17',
      4,
      /expected string, received number \(forwarders\.a\.token\)/,
    ],
    ['forwarders:\n  a:\n    url: ws://h\n    token: ""', 4, /expected a token \(forwarders\.a\.token\)/],
    ['forwarders:\n  a:\n    url: ws://h\n    token: x\n    token_file: y', 3, /expected one of token and token_file/],
    ['forwarders:\n  a:\n    url: ws://h\n    tls:\n      cert: x', 5, /expected cert and key together .*tls/],
    ['forwarders:\n  a:\n    url: ws://h\n    tokenfile: x', 4, /unknown key tokenfile \(forwarders\.a\)/],
    ['forwarders:\n  a: { url: ws://h }\n  a: { url: ws://i }', 3, /expected valid YAML \(Map keys must be unique\)/],
  ];
  for (const [text, line, what] of mistakes) {
    const message = mistakeOf(() => loadControlConfig(`${t.testdir({ 'c.yaml': text })}/c.yaml`));
    t.match(message, what);
    t.equal(/c\.yaml:([0-9]+): /.exec(message)?.[1], String(line), message);
  }
});

t.test('the short form names forwarders by URL', async (t) => {
  t.same(parseSource('fwd1=ws://127.0.0.1:7440'), {
    name: defaultControlName(),
    weight: 1,
    forwarders: new Map([['fwd1', remote('ws://127.0.0.1:7440')]]),
    vifs: [],
    vips: [],
  });
  const { forwarders } = loadSource('a=ws://[2001:db8::1]:1/,b=wss://h,c.d-e_f=ws+unix:/run/x=y.sock');
  t.same(Object.fromEntries(forwarders), {
    a: remote('ws://[2001:db8::1]:1'),
    b: remote('wss://h'),
    'c.d-e_f': remote('ws+unix:/run/x=y.sock'),
  });
});

t.test('a mistake in the short form is told with the part that is wrong', async (t) => {
  const mistakes: [text: string, what: RegExp][] = [
    ['', /^"": expected NAME=URL$/],
    ['fwd1', /^"fwd1": expected NAME=URL/],
    ['=ws://h', /expected NAME=URL/],
    ['.a=ws://h', /expected NAME=URL/],
    ['a=ws://h,', /^"": expected NAME=URL/],
    ['a=ws://h,b', /^"b": expected NAME=URL/],
    ['a=http://h', /^"a=http:\/\/h": expected ws:\/\/HOST/],
    ['a=', /expected ws:\/\/HOST/],
    ['a=ws://[1.2.3]:1', /expected ws:\/\/HOST/],
    ['a=ws://h,a=ws://i', /^"a=ws:\/\/i": expected every name once/],
  ];
  for (const [text, what] of mistakes)
    t.match(
      mistakeOf(() => parseSource(text)),
      what,
      text,
    );
});

t.test('a source is the short form when it begins with a name and an equals sign', async (t) => {
  for (const source of ['a=b', 'fwd1=ws://h,b=c']) t.equal(isShortForm(source), true, source);
  for (const source of ['control.yaml', './a=b', '/etc/a=b.yaml', '=x', ''])
    t.equal(isShortForm(source), false, source);
});

t.test('virtual IFs of a file have the form of `vif add`', async (t) => {
  const text = (vifs: string): string => `forwarders: { fwd1: { url: "ws://127.0.0.1:7440" } }\nvifs: [ ${vifs} ]\n`;
  const load = (vifs: string) => loadSource(`${t.testdir({ 'c.yaml': text(vifs) })}/c.yaml`).vifs;
  const [one, other] = load(
    '{ interface: fwd1/eth0 }, { interface: fwd1/eth1, name: w, kind: tun, netns: web, expose: ["tcp:80", "udp:1-9"] }',
  );
  const plain = { name: null, kind: null, netns: '', expose: null };
  t.same(one, { forwarder: 'fwd1', request: { interface: 'eth0', ...plain } });
  t.match(other, { forwarder: 'fwd1', request: { interface: 'eth1', name: 'w', kind: 'tun', netns: 'web' } });
  t.same(
    other?.request.expose?.map((protocol) => protocol.text),
    ['tcp:80', 'udp:1-9'],
  );
  const mistakes: [vifs: string, says: RegExp][] = [
    ['{ interface: eth0 }', /expected FORWARDER\/INTERFACE/],
    ['{ interface: fwd2/eth0 }', /there is no forwarder fwd2/],
    ['{ interface: fwd1/eth0, kind: vlan }', /expected tap or tun/],
    ['{ interface: fwd1/eth0, expose: ["tcp:99999"] }', /tcp:99999/],
    ['{ interface: fwd1/eth0, colour: red }', /colour/],
  ];
  for (const [vifs, says] of mistakes)
    t.match(
      mistakeOf(() => load(vifs)),
      says,
      vifs,
    );
});

t.test('a weight is a number from 1 to 256', async (t) => {
  const dir = t.testdir({
    'c.yaml': 'weight: 3',
    'most.yaml': 'weight: 256',
    'less.yaml': 'weight: 0',
    'more.yaml': 'weight: 257',
  });
  t.equal(loadControlConfig(`${dir}/c.yaml`).weight, 3);
  t.equal(loadControlConfig(`${dir}/most.yaml`).weight, 256);
  for (const name of ['less', 'more']) {
    t.equal(
      mistakeOf(() => loadControlConfig(`${dir}/${name}.yaml`)),
      `${dir}/${name}.yaml:1: expected a number from 1 to 256 (weight)`,
    );
  }
});

t.test('virtual IP addresses of the file', async (t) => {
  const load = (vips: string): ReturnType<typeof loadControlConfig> => {
    const dir = t.testdir({ 'c.yaml': `forwarders: { fwd1: { url: "ws://h:1" } }\nvips: [ ${vips} ]\n` });
    return loadControlConfig(`${dir}/c.yaml`);
  };
  const { vips } = load(
    '{ address: fwd1/10.9.0.1 }, { address: "fwd1/FD09:0::1", sender: "fd00::7", expose: ["tcp:80"] }',
  );
  t.match(vips, [
    { forwarder: 'fwd1', request: { address: '10.9.0.1', sender: null, expose: null } },
    { forwarder: 'fwd1', request: { address: 'fd09::1', sender: 'fd00::7', expose: [{ text: 'tcp:80' }] } },
  ]);
  const mistakes: [vips: string, says: RegExp][] = [
    ['{ address: 10.9.0.1 }', /expected FORWARDER\/ADDRESS/],
    ['{ address: fwd1/eth0 }', /expected FORWARDER\/ADDRESS/],
    ['{ address: fwd2/10.9.0.1 }', /vips: there is no forwarder fwd2/],
    ['{ address: fwd1/10.9.0.1, sender: web }', /expected an IPv4 or IPv6 address/],
    ['{ address: fwd1/10.9.0.1, sender: "fd00::7" }', /expected address and sender of one family/],
    ['{ address: fwd1/10.9.0.1, expose: ["tcp:99999"] }', /tcp:99999/],
  ];
  for (const [text, says] of mistakes) {
    t.match(
      mistakeOf(() => load(text)),
      says,
      text,
    );
  }
});
