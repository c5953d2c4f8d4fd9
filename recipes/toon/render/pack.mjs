// Renders a split into shards: images-NNNN.bin (pictures of side x side x 3 bytes, one after the other) and captions-NNNN.jsonl.
// A shard is there once both its files bear their final names, so a killed run goes on where it stopped.
//   node pack.mjs --split train --count 100000 [--workers 2] [--tiny]
import { existsSync, mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { createCharacter, trainingStyles, heldOutStyles } from './characters.mjs';
import { describe, planOf, planPicture, renderPicture } from './pictures.mjs';

const side = 128;
const shardLength = 2000;
const picturesPerIdentity = 8;
const tinyCount = 160;

// Emoji faces and blobs differ by little more than colour, so they cannot serve as identities.
const identityStyles = Object.keys(trainingStyles).filter((name) => !['emoji', 'blob'].includes(trainingStyles[name].kind));

function identityPlanner(styleNames) {
  return (split, index) => {
    const number = Math.floor(index / picturesPerIdentity);
    const character = createCharacter(styleNames[number % styleNames.length], `${split}/${number}`);
    return planOf(character, `${split}/${index}/context`);
  };
}
const splits = {
  train: { count: 100000, plan: (split, index) => planPicture(split, index, trainingStyles) },
  held_out: { count: 2000, plan: (split, index) => planPicture(split, index, trainingStyles) },
  held_out_styles: { count: 2000, plan: (split, index) => planPicture(split, index, heldOutStyles) },
  identity: { count: 12000, plan: identityPlanner(identityStyles) },
  identity_held_out: { count: 800, plan: identityPlanner(identityStyles) },
  identity_held_out_styles: { count: 800, plan: identityPlanner(Object.keys(heldOutStyles)) },
};

async function renderShard(split, folder, shard, count) {
  const name = String(shard).padStart(4, '0');
  const images = join(folder, `images-${name}.bin`);
  const captions = join(folder, `captions-${name}.jsonl`);
  const start = shard * shardLength;
  const length = Math.min(shardLength, count - start);
  const bytes = length * side * side * 3;
  // A shard of another length is a leaving of a run with another --count.
  if (existsSync(captions) && existsSync(images) && statSync(images).size === bytes) return;
  const pixels = Buffer.alloc(bytes);
  const lines = [];
  for (let k = 0; k < length; k++) {
    // The renderer's memory is freed between turns of the event loop only.
    if (k % 50 === 0) await nextTurn();
    const plan = splits[split].plan(split, start + k);
    pixels.set(renderPicture(plan, side), k * side * side * 3);
    lines.push(JSON.stringify(describe(plan, `${split}/${start + k}`)));
  }
  for (const [path, content] of [[images, pixels], [captions, `${lines.join('\n')}\n`]]) {
    writeFileSync(`${path}.part`, content);
    renameSync(`${path}.part`, path);
  }
  console.log(`${split} ${start + length}/${count}`);
}

const { values } = parseArgs({ options: {
  split: { type: 'string', default: 'train' }, count: { type: 'string' }, workers: { type: 'string', default: '1' }, tiny: { type: 'boolean', default: false }, worker: { type: 'string' },
} });
if (!splits[values.split]) throw new Error(`--split is one of ${Object.keys(splits).join(', ')}`);
const count = values.tiny ? tinyCount : Number(values.count ?? splits[values.split].count);
const workers = Number(values.workers);
const folder = join(process.env.TOON_WORK ?? join(homedir(), '.cache/personae/toon'), 'data', values.split);
mkdirSync(folder, { recursive: true });

if (workers > 1 && values.worker === undefined) {
  for (let worker = 0; worker < workers; worker++) {
    const child = fork(fileURLToPath(import.meta.url), [...process.argv.slice(2), '--worker', String(worker)]);
    child.on('exit', (code) => { process.exitCode ||= code ?? 1; });
  }
} else {
  const step = values.worker === undefined ? 1 : workers;
  for (let shard = Number(values.worker ?? 0); shard * shardLength < count; shard += step) await renderShard(values.split, folder, shard, count);
}
