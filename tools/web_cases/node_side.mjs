// node node_side.mjs PACKAGE ARTIFACT BATCHES RESULT: trains with that package, and writes RESULT.json and RESULT.safetensors.
import { readFile, writeFile } from "node:fs/promises";
import { drive } from "./drive.mjs";

const [package_, artifact, batches, result] = process.argv.slice(2);
const ort = await import(package_);
const readBytes = async (file) => new Uint8Array(await readFile(file));
const { state, ...found } = await drive(ort, (file) => readBytes(`${artifact}/${file}`), await readBytes(batches), {});
await writeFile(`${result}.safetensors`, state);
await writeFile(`${result}.json`, JSON.stringify(found));
// What onnxruntime-web's threads leave behind would keep the process alive.
process.exit(0);
