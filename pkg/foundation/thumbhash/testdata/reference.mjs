// Prints "NAME HASH" for each file NAME.rgba of a directory: width, height, then four bytes a pixel. It needs the package thumbhash.
import { readdirSync, readFileSync } from 'node:fs'
import { rgbaToThumbHash } from 'thumbhash'

const directory = process.argv[2]
for (const file of readdirSync(directory).filter(f => f.endsWith('.rgba')).sort()) {
  const [width, height, ...rgba] = readFileSync(`${directory}/${file}`)
  console.log(file.replace('.rgba', ''), Buffer.from(rgbaToThumbHash(width, height, rgba)).toString('hex'))
}
