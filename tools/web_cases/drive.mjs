// Trains an artifact on fixed batches with the documented program, the same way in Node and in a browser.
import { load, safetensors, tensors } from "./train.mjs";

/**
 * Train.
 * @param ort The module of onnxruntime.
 * @param read Reads a file of the artifact.
 * @param batches A safetensors file with `STEP/NAME` for each array of each batch.
 * @param options Options of the session.
 * @returns The losses, the milliseconds of each step, and the state as a safetensors file.
 */
export async function drive(ort, read, batches, options) {
  const trainer = await load(ort, read, options);
  const arrays = tensors(ort, batches);
  const losses = [];
  const milliseconds = [];
  for (let step = 0; `${step}/${trainer.manifest.batch[0].name}` in arrays; step++) {
    const batch = Object.fromEntries(trainer.manifest.batch.map(({ name }) => [name, arrays[`${step}/${name}`]]));
    const begin = performance.now();
    losses.push(Number(await trainer.step(batch)));
    milliseconds.push(performance.now() - begin);
  }
  return { losses, milliseconds, state: safetensors(trainer.state) };
}
