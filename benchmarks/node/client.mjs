// The worker for Node: the same commands as benchmarks/workers.py, one JSON object a
// line, and the same work for each event. `node client.mjs eventsource` or `... undici`.
// It is copied beside node_modules, where its imports are found.

import { readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

const library = process.argv[2]
const { EventSource } = await import(library)

const PARSER_CHUNK = 64 * 1024 // bytes, as in peers.py
const BATCH = 20 // streams opened at once, as in workers.py
const QUIET = 200 // milliseconds, as in workers.py
const STAMP = 20 // digits at the beginning of a paced event

const seconds = (since) => Number(process.hrtime.bigint() - since) / 1e9

// From just before connecting until the last event has been handled.
function client({ url, types, events }) {
  return new Promise((resolve) => {
    let count = 0
    let chars = 0
    const started = process.hrtime.bigint()
    const source = new EventSource(url)
    const finish = () => {
      const reply = { seconds: seconds(started), events: count, chars }
      source.close()
      resolve(reply)
    }
    const handle = (event) => {
      count += 1
      chars += event.data.length
      if (count === events) finish()
    }
    for (const type of types) source.addEventListener(type, handle)
    source.addEventListener('error', finish) // it would reconnect
  })
}

// The parser of npm eventsource, fed as that feeds it; the bytes come beforehand.
async function parse({ url, expected }) {
  const { createParser } = await import('eventsource-parser')
  const body = new Uint8Array(await (await fetch(url)).arrayBuffer())
  let count = 0
  let chars = 0
  const started = process.hrtime.bigint()
  const decoder = new TextDecoder()
  const parser = createParser({
    onEvent: (event) => {
      count += 1
      chars += event.data.length
    },
  })
  for (let at = 0; at < body.length; at += PARSER_CHUNK) {
    parser.feed(decoder.decode(body.subarray(at, at + PARSER_CHUNK), { stream: true }))
  }
  return { seconds: seconds(started), events: count, chars }
}

// Nanoseconds from the server's stamp to the handler; process.hrtime is the same clock.
function latency({ url, events }) {
  return new Promise((resolve) => {
    const nanoseconds = []
    const source = new EventSource(url)
    const finish = () => {
      source.close()
      resolve({ nanoseconds })
    }
    source.addEventListener('message', (event) => {
      const now = process.hrtime.bigint()
      nanoseconds.push(Number(now - BigInt(event.data.slice(0, STAMP))))
      if (nanoseconds.length === events) finish()
    })
    source.addEventListener('error', finish)
  })
}

// Memory and threads that open, silent streams add to the process.
async function idle({ url, streams }) {
  const sources = []
  const open = () =>
    new Promise((resolve, reject) => {
      const source = new EventSource(url)
      sources.push(source)
      source.addEventListener('message', resolve)
      source.addEventListener('error', () => reject(new Error('no stream')))
    })
  const threads = () => readdirSync('/proc/self/task').length
  await open() // what is loaded once is no stream's own
  const before = { memory: process.memoryUsage().rss, threads: threads() }
  while (sources.length <= streams) {
    const batch = Math.min(BATCH, streams + 1 - sources.length)
    await Promise.all(Array.from({ length: batch }, open))
  }
  await sleep(QUIET)
  return {
    bytes: (process.memoryUsage().rss - before.memory) / streams,
    threads: (threads() - before.threads) / streams,
  }
}

process.stdin.on('end', () => process.exit(0)) // the parent is gone

const work = { client, parse, latency, idle }
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  let reply
  try {
    reply = await work[command.do](command)
  } catch (error) {
    reply = { error: error.name, detail: String(error.stack) }
  }
  process.stdout.write(JSON.stringify(reply) + '\n')
}
