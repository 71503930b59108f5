// What a person sees: the program's bytes as they are, everything else as lines on stderr.

import { Code, ConnectError } from "@connectrpc/connect";

import { ErrorInfoSchema } from "./gen/google/rpc/error_info_pb.js";
import { InstallFailureReason, InstallStage, PackageAction, Phase, Stream } from "./gen/qila/gateway/v1/gateway_pb.js";

/** The exit code when Qila failed, rather than the program. */
export const QILA_FAILED = 125;

// A reader that goes away is told to whoever writes, by the callback.
process.stdout.on("error", () => {});
process.stderr.on("error", () => {});

/** Prints one event, and returns when it is written. */
export async function show({ event: { case: kind, value } }) {
  if (kind === "output" && value.phase === Phase.RUN) {
    await write(value.stream === Stream.STDERR ? process.stderr : process.stdout, value.data);
  } else if (kind === "phaseStarted") {
    say(Phase[value.phase]);
  } else if (kind === "stage") {
    say(`  ${InstallStage[value.stage].toLowerCase()} ${value.done}/${value.total}`);
  } else if (kind === "package") {
    say(`  ${PackageAction[value.action].toLowerCase()} ${value.name} ${value.version}`);
  } else if (kind === "notice") {
    say(`  ${value.message}`);
  }
}

function write(stream, data) {
  return new Promise((resolve, reject) => {
    stream.write(data, (error) => (error ? reject(error) : resolve()));
  });
}

/** Answers the exit code that tells how an exec ended, and prints the end if it was not the program's own exit. */
export function showEnd({ end: { case: kind, value } }) {
  switch (kind) {
    case "exited":
      return value;
    case "signaled":
      say(`console: killed by signal ${value}`);
      return 128 + value;
    case "timedOut":
      say(`console: timed out in ${Phase[value.phase]}`);
      return 124;
    case "oomKilled":
      say("console: out of memory");
      return 137;
    case "cancelled":
      say("console: cancelled");
      return 130;
    case "installFailed":
      say(`console: install failed: ${InstallFailureReason[value.reason]}`);
      say([value.detail, ...value.hints].join("\n"));
      return QILA_FAILED;
    case "planFailed":
      say(`console: ${value.reason}: ${value.detail}`);
      return QILA_FAILED;
    case "startFailed":
      say(`console: cannot start: ${value.error} ${value.detail}`);
      return value.error === "ENOENT" ? 127 : 126;
    default:
      say(`console: ${kind} ${value?.detail ?? ""}`);
      return QILA_FAILED;
  }
}

/** Prints a failure: of a call its reason, and the message, which says what to do. */
export function report(error, what = "") {
  if (!(error instanceof ConnectError)) {
    say(`console: ${what}${error.message}`);
  } else if (infoOf(error)) {
    say(`console: ${what}${infoOf(error).reason}: ${error.rawMessage}`);
  } else if (error.code === Code.Canceled) {
    say(`console: ${what}interrupted`);
  } else {
    say(`console: ${what}${Code[error.code]}: ${error.rawMessage}; see that the gateway runs at this address`);
  }
}

/** What programs decide by; undefined if Qila did not say it. */
export function reasonOf(error) {
  return infoOf(error)?.reason;
}

/**
 * Whether a call may go well later: every refusal of Qila's carries ErrorInfo, so what has none was said by the
 * connection, and UNAVAILABLE is a service that does not answer.
 */
export function isLost(error) {
  return error instanceof ConnectError && (error.code === Code.Unavailable || !infoOf(error));
}

function infoOf(error) {
  const details = error instanceof ConnectError ? error.findDetails(ErrorInfoSchema) : [];
  return details.find((info) => info.domain === "qila");
}

/** A line without control characters: what a stranger wrote must not steer the terminal. */
export function say(text) {
  process.stderr.write(`${text.trimEnd().replace(/[^\P{C}\n]/gu, "\ufffd")}\n`);
}
