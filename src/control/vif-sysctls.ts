/**
 * Settings of a mirror's device, all made before it is up: the forwarder's kernel alone speaks to the link, so the mirror's
 * asks for nothing by itself and answers nothing.
 */
import { readSysctl, writeSysctl } from '../sys/sysctl.js';

const IPV4: Readonly<Record<string, number>> = {
  // No ARP is answered, and none is sent unasked.
  arp_ignore: 8,
  arp_notify: 0,
  proxy_arp: 0,
  // A secondary address stays when the first one of its prefix goes.
  promote_secondaries: 1,
  accept_redirects: 0,
  send_redirects: 0,
  // Reports then say join and leave, whatever the sources.
  force_igmp_version: 2,
};

const IPV6: Readonly<Record<string, number>> = {
  disable_ipv6: 0,
  // No address of its own making; no router is asked for or believed; no address is asked for before it is used.
  addr_gen_mode: 1,
  use_tempaddr: 0,
  autoconf: 0,
  accept_ra: 0,
  router_solicitations: 0,
  accept_dad: 0,
  dad_transmits: 0,
  accept_redirects: 0,
  ndisc_notify: 0,
  proxy_ndp: 0,
  force_mld_version: 1,
};

const RP_FILTER_OFF = 0;
const RP_FILTER_LOOSE = 2;

/**
 * In the network namespace of the thread.
 *
 * @throws SystemError where /proc/sys is read-only
 */
export function setSysctls(name: string): void {
  for (const [key, value] of Object.entries(IPV4)) writeSysctl(`net/ipv4/conf/${name}/${key}`, value);
  // The stricter of both counts: clients off the link have no route through the device in main. Loose is what gets in.
  const strict = readSysctl('net/ipv4/conf/all/rp_filter') === '1';
  writeSysctl(`net/ipv4/conf/${name}/rp_filter`, strict ? RP_FILTER_LOOSE : RP_FILTER_OFF);
  for (const [key, value] of Object.entries(IPV6)) writeSysctl(`net/ipv6/conf/${name}/${key}`, value);
}
