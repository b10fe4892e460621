/**
 * Weights of control devices, by both ways that packets take. The topology is that of balance.ts, with two control devices:
 *
 *     node ns                 forwarder ns                              control ns, one for each
 *     load                    10.9.0.1                                  ctl1: weight 1, nginx
 *     n0 10.9.0.2 --------- eth0 |               | c0 ---------- f0     ctl2: weight 3, nginx
 *                                                | c1 ---------- f0
 */
import { testWeights } from '../support/balance-cases.js';

testWeights('socket');
testWeights('vip');
