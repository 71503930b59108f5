// Uploads what is to be run.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { basename, join } from "node:path";

const CHUNK_BYTES = 64 << 10;
const UPLOAD_TIMEOUT_MS = 900_000;
// Directories that are made from the others.
const LEFT_OUT = new Set([".git", ".venv", "node_modules", "__pycache__"]);

/**
 * Writes a file, or the files of a directory, into the workspace. Answers the file to run: of a directory none, so that
 * Qila finds the program.
 */
export async function upload(gateway, sandboxId, path, signal) {
  if (!(await stat(path)).isDirectory()) {
    await writeFile(gateway, sandboxId, path, basename(path), signal);
    return basename(path);
  }
  for await (const name of filesBelow(path)) {
    await writeFile(gateway, sandboxId, join(path, name), name, signal);
  }
  return "";
}

async function* filesBelow(directory, prefix = "") {
  for (const entry of await readdir(join(directory, prefix), { withFileTypes: true })) {
    const name = prefix + entry.name;
    if (entry.isFile()) {
      yield name;
    } else if (entry.isDirectory() && !LEFT_OUT.has(entry.name)) {
      yield* filesBelow(directory, `${name}/`);
    }
  }
}

async function writeFile(gateway, sandboxId, local, path, signal) {
  const executable = ((await stat(local)).mode & 0o100) !== 0;
  const options = { signal, timeoutMs: UPLOAD_TIMEOUT_MS };
  await gateway.writeFile(parts({ sandboxId, path, executable }, local), options);
}

/** The header, the bytes, and the end, without which nothing is written. */
async function* parts(header, local) {
  yield { part: { case: "header", value: header } };
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(local, { highWaterMark: CHUNK_BYTES })) {
    hash.update(chunk);
    yield { part: { case: "chunk", value: chunk } };
  }
  yield { part: { case: "end", value: { sha256: hash.digest("hex") } } };
}
