// The input of an exec, across lost connections.

import { Code, ConnectError } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";

const CHUNK_BYTES = 64 << 10;
const NOTHING = new Uint8Array(0);

/** What the program reads, as far as the gateway has not acknowledged it. */
export class Input {
  constructor(source) {
    this.source = source[Symbol.asyncIterator]();
    // Of the first byte of pending.
    this.offset = 0n;
    this.pending = NOTHING;
    this.ended = false;
  }

  /** Drops what the sandbox holds. */
  accept(offset) {
    this.pending = this.pending.subarray(Number(offset - this.offset));
    this.offset = offset;
  }

  /** What has to be sent: what is pending, else what the source says next, else the end. */
  async next() {
    if (this.pending.length === 0 && !this.ended) {
      const { value, done } = await this.source.next();
      this.pending = value ?? NOTHING;
      this.ended = done;
    }
    if (this.pending.length === 0) {
      return { part: { case: "end", value: { offset: this.offset } } };
    }
    const data = this.pending.subarray(0, CHUNK_BYTES);
    return { part: { case: "chunk", value: { offset: this.offset, data } } };
  }
}

/** Sends over one connection: a chunk, when the one before it can no longer be lost. */
export async function writeStdin(gateway, ids, input, progressed) {
  const requests = createWritableIterable();
  // Why a request cannot be sent is told by the answers.
  const send = (request) => requests.write(request).catch(() => {});
  send({ part: { case: "header", value: ids } });
  let sent = 0n;
  let endSent = false;
  // The first answer comes when the program runs, and says from where on.
  for await (const { accepted } of gateway.writeStdin(requests)) {
    progressed();
    input.accept(accepted);
    if (accepted < sent || endSent) {
      continue;
    }
    const request = await input.next();
    send(request);
    if (request.part.case === "end") {
      endSent = true;
      requests.close();
    } else {
      sent = input.offset + BigInt(request.part.value.data.length);
    }
  }
  if (!endSent) {
    throw new ConnectError("the stream ended before the input", Code.Unavailable);
  }
}
