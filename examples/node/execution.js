// One exec: started once, watched to its end, whatever happens to the connection.

import { randomBytes } from "node:crypto";
import { constants } from "node:os";
import { setTimeout as pause } from "node:timers/promises";
import { Code, ConnectError } from "@connectrpc/connect";

import { Phase, Stream } from "./gen/qila/gateway/v1/gateway_pb.js";
import { Input, writeStdin } from "./stdin.js";
import { isLost, reasonOf, report, show, showEnd } from "./show.js";

// How long a call that is not a stream may take.
export const CALL_TIMEOUT_MS = 120_000;
// How long to try again while nothing comes, and how long to wait between two tries.
const PATIENCE_MS = 60_000;
const RETRY_PAUSE_MS = 200;
// The gateway tells a heartbeat every 15 seconds: longer silence is a lost connection.
const SILENCE_LIMIT_MS = 45_000;

export class Execution {
  constructor(gateway, sandboxId) {
    this.gateway = gateway;
    this.ids = { sandboxId, execId: newExecId() };
    this.position = { ...this.ids, afterSequence: 0n, from: { stdout: 0n, stderr: 0n } };
  }

  /** Starts the program, shows it to its end, and answers its exit code. */
  async run(program) {
    await this.start(program);
    this.forwardStdin(process.stdin);
    return showEnd(await untilPatienceEnds((progressed) => this.watch(progressed)));
  }

  /** Returns when the exec is there. A repeat with the same id and request finds it instead of starting another. */
  async start(program) {
    const request = { ...this.ids, what: { case: "program", value: program }, stdin: true, detach: true };
    await untilPatienceEnds(async () => {
      for await (const _ of this.gateway.exec(request, { timeoutMs: CALL_TIMEOUT_MS })) {
        // Only `created` comes.
      }
    });
  }

  /** Shows the events behind the position, and moves it, until the exec ends or the connection is lost. */
  async watch(progressed) {
    const silence = new AbortController();
    const breakOff = () => silence.abort();
    let timer = setTimeout(breakOff, SILENCE_LIMIT_MS);
    try {
      for await (const { event } of this.gateway.attachExec(this.position, { signal: silence.signal })) {
        // Whoever reads our output may take his time.
        clearTimeout(timer);
        progressed();
        await show(event);
        this.advance(event);
        if (event.event.case === "ended") {
          return event.event.value;
        }
        timer = setTimeout(breakOff, SILENCE_LIMIT_MS);
      }
    } finally {
      clearTimeout(timer);
    }
    throw new ConnectError("the stream ended before the exec", Code.Unavailable);
  }

  /** Moves the position behind an event that was shown. */
  advance({ sequence, event }) {
    if (event.case === "output" && event.value.phase === Phase.RUN) {
      // Output of the run has no sequence: its place is its offset.
      const stream = event.value.stream === Stream.STDERR ? "stderr" : "stdout";
      this.position.from[stream] = event.value.offset + BigInt(event.value.data.length);
    } else if (sequence > 0n) {
      this.position.afterSequence = sequence;
    }
  }

  /** Sends a stream's bytes to the program, and then their end. */
  async forwardStdin(source) {
    const input = new Input(source);
    try {
      await untilPatienceEnds((progressed) => writeStdin(this.gateway, this.ids, input, progressed));
    } catch (error) {
      // STDIN_ENDED: the connection was lost between the end and its acknowledgement.
      if (!(input.ended && reasonOf(error) === "STDIN_ENDED") && reasonOf(error) !== "EXEC_ENDED") {
        report(error, "not all of the input was sent: ");
      }
    }
  }

  /** Gives the program an interrupt; before it runs, and for SIGTERM, the exec is cancelled instead. */
  async pass(name) {
    try {
      if (name !== "SIGINT" || !(await this.interrupt())) {
        await this.gateway.cancelExec(this.ids, { timeoutMs: CALL_TIMEOUT_MS });
      }
    } catch (error) {
      if (reasonOf(error) !== "EXEC_ENDED") {
        report(error);
      }
    }
  }

  /** False if there is no program yet. */
  async interrupt() {
    try {
      await this.gateway.signalExec({ ...this.ids, signal: constants.signals.SIGINT }, { timeoutMs: CALL_TIMEOUT_MS });
      return true;
    } catch (error) {
      if (reasonOf(error) === "EXEC_NOT_RUNNING") {
        return false;
      }
      throw error;
    }
  }
}

/**
 * "ex_" and 26 of [a-z2-7]. Who knows the id before the exec is started can start it twice without running it twice.
 */
function newExecId() {
  const alphabet = "abcdefghijklmnopqrstuvwxyz234567";
  return `ex_${Array.from(randomBytes(26), (byte) => alphabet[byte % 32]).join("")}`;
}

/** Repeats a call that lost its connection, until it has made no progress for too long. */
async function untilPatienceEnds(call) {
  let deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await call(() => {
        deadline = Date.now() + PATIENCE_MS;
      });
    } catch (error) {
      if (!isLost(error) || Date.now() > deadline) {
        throw error;
      }
    }
    await pause(RETRY_PAUSE_MS);
  }
}
