/**
 * Load balancing by address conversion: one virtual IP address, nginx on each of several control devices, all under load.
 *
 *     node ns                 forwarder ns                              control ns, one for each
 *     load, curl, echo        10.9.0.1                                  ctl1: lo 10.9.0.1, nginx
 *     n0 10.9.0.2 --------- eth0 | nftables | c0 ---------- f0          ctl2: lo 10.9.0.1, nginx
 *                                           | c1 ---------- f0          …
 *
 *     GET http://10.9.0.1/ ──► dnat by jhash to a sender address ──► link of that control device ──► dnat back ──► its nginx
 */
import { testBalance } from '../support/balance-cases.js';

testBalance('vip');
