/**
 * `fwdfs doctor`: what this host lacks, and the command that mends it.
 *
 *     checks --> findings --(--fix: packages, then commands)--> checks again --> table, exit 0 or 1
 */
import { spawnSync } from 'node:child_process';
import type { Command } from 'commander';
import { CHECKS, examine, type Finding, mendOf } from './doctor-checks.js';
import { action, EXIT_FAILED } from './exit.js';
import { printJson, printTable } from './output.js';

interface DoctorFlags {
  readonly fix?: boolean;
  readonly tests?: boolean;
  readonly json?: boolean;
}

const isFailure = ({ check, problem }: Finding): boolean => problem !== null && check.need !== 'advice';

/** Runs a command with its output on stderr. @returns whether it worked */
function mend(words: readonly string[]): boolean {
  const [command = '', ...args] = words;
  process.stderr.write(`fwdfs: ${words.join(' ')}\n`);
  const { status, error } = spawnSync(command, args, {
    stdio: ['ignore', process.stderr, process.stderr],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (error !== undefined) process.stderr.write(`fwdfs: ${command}: ${error.message}\n`);
  return status === 0;
}

function has(command: string): boolean {
  return spawnSync(command, ['--version'], { stdio: 'ignore' }).error === undefined;
}

function install(packages: ReadonlySet<string>): void {
  if (packages.size === 0) return;
  if (!has('apt-get')) {
    throw new Error(`there is no apt-get here: install ${[...packages].join(', ')} with this system's own tool`);
  }
  mend(['apt-get', 'update', '-qq']);
  mend(['apt-get', 'install', '-y', '-qq', '--no-install-recommends', ...packages]);
}

/** Installs what is missing, all in one go; then, for what still fails, runs the commands that may be run without asking. */
async function fix(findings: readonly Finding[]): Promise<void> {
  if (process.getuid?.() !== 0) throw new Error('--fix needs root: sudo fwdfs doctor --fix');
  const failed = findings.filter(isFailure).map(({ check }) => check);
  install(new Set(failed.flatMap((check) => (check.command === undefined ? [check.package ?? ''] : []))));
  const left = (await examine(failed)).filter(isFailure).map(({ check }) => check);
  const commands = new Set(left.flatMap(({ automatic, command = '' }) => (automatic === true ? [command] : [])));
  if ([...commands].some((command) => command.startsWith('modprobe ')) && !has('modprobe')) install(new Set(['kmod']));
  for (const command of commands) mend(command.split(' '));
}

function print(findings: readonly Finding[]): void {
  printTable({
    columns: ['check', 'result', 'what to do'],
    rows: findings.map((finding) => {
      const { check, problem } = finding;
      if (problem === null) return [check.name, 'ok'];
      const result = check.need === 'advice' ? `note: ${problem}` : problem;
      return [check.name, result, `${mendOf(finding)}   (${check.why})`];
    }),
  });
}

async function doctor(flags: DoctorFlags): Promise<void> {
  const checks = CHECKS.filter(({ need }) => need !== 'tests' || flags.tests === true);
  let findings = await examine(checks);
  if (flags.fix === true && findings.some(isFailure)) {
    await fix(findings);
    findings = await examine(checks);
  }
  const failed = findings.filter(isFailure);
  if (flags.json === true) {
    printJson(
      findings.map((finding) => ({
        check: finding.check.name,
        ok: !isFailure(finding),
        need: finding.check.need,
        why: finding.check.why,
        problem: finding.problem,
        package: finding.check.package ?? null,
        command: mendOf(finding),
      })),
    );
  } else print(findings);
  if (failed.length === 0) return;
  const advice =
    flags.fix === true ? 'could not be mended: see "what to do"' : 'missing: fwdfs doctor --fix mends what it can';
  process.stderr.write(`fwdfs: ${failed.map(({ check }) => check.name).join(', ')} ${advice}\n`);
  if (process.getuid?.() !== 0) {
    process.stderr.write(
      'fwdfs: to mount without virtual interfaces, this user needs fusermount3 and /dev/fuse alone\n',
    );
  }
  process.exitCode = EXIT_FAILED;
}

export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('what this host lacks, and the command that mends it')
    .option('--fix', 'install missing Debian packages, load missing modules of the kernel, and check again')
    .option('--tests', 'also what the tests of fwdfs need')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Lines that begin with "note:" are advice for some uses; all others must be ok.

Examples:
  $ fwdfs doctor
  $ sudo fwdfs doctor --fix
  $ fwdfs doctor --tests --json | jq '.[] | select(.ok | not)'`,
    )
    .action(action(doctor));
}
