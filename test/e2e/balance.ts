/**
 * Load balancing by encapsulation: one address, nginx on each of several control devices with virtual IFs, all under load.
 *
 *     node ns                 forwarder ns                              control ns, one for each
 *     load, curl, echo        10.9.0.1                                  ctl1: fwd1-eth0 10.9.0.1, nginx
 *     n0 10.9.0.2 --------- eth0 | groups, flows | c0 ---------- f0     ctl2: fwd1-eth0 10.9.0.1, nginx
 *                                                | c1 ---------- f0     …
 *
 *     GET http://10.9.0.1/ ──► Maglev over the five-tuple ──► tunnel of one control device ──► its nginx
 */
import { testBalance } from '../support/balance-cases.js';

testBalance('socket');
