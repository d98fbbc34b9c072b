// The renditions of the default pipeline by sharp, as its documentation advises for several outputs of one input: a clone of
// the input's pipeline for each. Its commands and responses are those of ceiling.c.
import { createRequire } from 'node:module';
import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';

const [directory, ...widths] = process.argv.slice(2);
const sharp = createRequire(`${directory}/`)('sharp');

async function render(file) {
  const source = sharp(await readFile(file)).autoOrient();
  const outputs = widths.flatMap((width) => {
    const scaled = source.clone().resize({ width: Number(width), withoutEnlargement: true });
    return [
      scaled.clone().webp({ quality: 79, effort: 4 }).toBuffer(),
      scaled.clone().flatten({ background: '#ffffff' }).jpeg({ quality: 80, progressive: true }).toBuffer(),
    ];
  });
  return Promise.all(outputs);
}

console.log('');
for await (const list of createInterface({ input: process.stdin })) {
  let [renditions, bytes] = [0, 0];
  for (const file of (await readFile(list, 'utf8')).split('\n').filter(Boolean)) {
    for (const body of await render(file)) {
      renditions += 1;
      bytes += body.length;
    }
  }
  console.log(renditions, bytes);
}
