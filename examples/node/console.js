#!/usr/bin/env node
// Runs a program in a Qila sandbox and shows what happens, as it happens.
//
// The program's stdout and stderr come out byte for byte; everything else goes to stderr. Its stdin is the console's,
// Ctrl-C interrupts it, and its exit code is the console's. A lost connection is taken up again where it broke.

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { GatewayService } from "./gen/qila/gateway/v1/gateway_pb.js";
import { CALL_TIMEOUT_MS, Execution } from "./execution.js";
import { QILA_FAILED, report, say } from "./show.js";
import { upload } from "./upload.js";

/** Takes the program through a sandbox of its own and answers its exit code. */
async function run(address, path, args, keep) {
  const gateway = createClient(GatewayService, createGrpcTransport({ baseUrl: `http://${address}` }));
  // Before the program is started, a signal ends the console through its clean-up; later it is for the program.
  const setUp = new AbortController();
  let pass = () => setUp.abort(new ConnectError("interrupted", Code.Canceled));
  process.on("SIGINT", () => pass("SIGINT"));
  process.on("SIGTERM", () => pass("SIGTERM"));

  // Not interrupted: an id that nobody heard of could not be removed.
  const { sandbox } = await gateway.createSandbox({}, { timeoutMs: CALL_TIMEOUT_MS });
  if (keep) {
    say(`sandbox ${sandbox.id}`);
  }
  try {
    const file = await upload(gateway, sandbox.id, path, setUp.signal);
    setUp.signal.throwIfAborted();
    const execution = new Execution(gateway, sandbox.id);
    pass = (signal) => execution.pass(signal);
    return await execution.run({ file, args });
  } finally {
    if (!keep) {
      await remove(gateway, sandbox.id);
    }
  }
}

/** Ends what still runs in the sandbox and removes it with its files. */
async function remove(gateway, sandboxId) {
  try {
    await gateway.removeSandbox({ sandboxId }, { timeoutMs: CALL_TIMEOUT_MS });
  } catch (error) {
    report(error, `sandbox ${sandboxId} was not removed: `);
  }
}

const words = process.argv.slice(2);
const keep = words[0] === "--keep";
const [address, path, ...args] = keep ? words.slice(1) : words;
if (!path) {
  say("usage: console.js [--keep] ADDRESS FILE|DIR [ARGS...]");
  process.exit(2);
}
try {
  process.exitCode = await run(address, path, args, keep);
} catch (error) {
  report(error);
  process.exitCode = QILA_FAILED;
}
// A read of stdin may still be waiting.
process.exit();
