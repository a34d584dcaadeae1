// npm toxiproxy-node-client against the server whose URL is the first argument: every call, and what every toxic does.
"use strict";

const assert = require("node:assert/strict");
const net = require("node:net");
const { Toxiproxy } = require("toxiproxy-node-client");

const url = process.argv[2];
const SIZE = 200_000;

const listening = (server) =>
  new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server.address().port)));

// Sends back what it gets, and ends when its client does.
const echo = () => listening(net.createServer((socket) => socket.on("error", () => {}).pipe(socket)));

// Sends bytes through a proxy to the echo: what came back, in how many pieces, after how long, and how it ended.
function exchange(listen, bytes, patience = 5_000) {
  const [host, port] = [listen.slice(0, listen.lastIndexOf(":")), listen.split(":").pop()];
  return new Promise((resolve) => {
    const begun = performance.now();
    const seen = { bytes: 0, pieces: 0, ended: "open", first: null };
    const socket = net.connect({ host, port });
    const done = () => {
      socket.destroy();
      seen.millis = performance.now() - begun;
      resolve(seen);
    };
    setTimeout(done, patience).unref();
    socket.on("connect", () => socket.write(Buffer.alloc(bytes, 7)));
    socket.on("data", (data) => {
      seen.first ??= performance.now() - begun;
      seen.bytes += data.length;
      seen.pieces += 1;
      if (seen.bytes === bytes) socket.end();
    });
    socket.on("error", (error) => {
      seen.ended = error.code;
      done();
    });
    socket.on("end", () => {
      seen.ended = "end";
      done();
    });
  });
}

async function calls(client, upstream) {
  assert.equal(JSON.parse(await client.getVersion()).version, "2.12.0");
  const made = await client.createProxy({ name: "p", listen: "localhost:0", upstream });
  assert.equal(made.name, "p");
  assert.equal(made.enabled, true);
  assert.match(made.listen, /^127\.0\.0\.1:\d{2,}$/);
  await assert.rejects(client.createProxy({ name: "p", listen: "localhost:0", upstream }), /status code 409/);
  await assert.rejects(client.createProxy({ name: "q", listen: made.listen, upstream }), /status code 500/);
  assert.equal((await client.get("p")).upstream, upstream);
  await assert.rejects(client.get("none"), /status code 404/);
  const populated = await client.populate([
    { name: "p", listen: made.listen, upstream },
    { name: "other", listen: "localhost:0", upstream, enabled: false },
  ]);
  assert.deepEqual(Object.keys(populated), ["p", "other"]);
  assert.equal(populated.other.enabled, false);
  assert.deepEqual(Object.keys(await client.getAll()), ["other", "p"]);

  const off = await made.update({ enabled: false });
  assert.equal(off.enabled, false);
  assert.equal((await exchange(made.listen, 5)).ended, "ECONNREFUSED");
  assert.equal((await made.update({ ...off.toJson(), enabled: true })).enabled, true);
  assert.equal((await exchange(made.listen, 5)).bytes, 5);
  await client.reset();
  const other = await client.get("other");
  assert.equal(other.enabled, true);
  await other.remove();
  await assert.rejects(client.get("other"), /status code 404/);
  return made;
}

async function toxics(client, proxy) {
  // Adds a toxic, sees what it does, changes and removes it.
  const under = async (type, attributes, look, stream = "downstream") => {
    const toxic = await proxy.addToxic({ name: `a ${type}`.replace(" ", "-"), type, stream, toxicity: 1, attributes });
    assert.deepEqual(toxic.toJson(), { attributes, name: `a-${type}`, stream, toxicity: 1, type });
    assert.deepEqual((await proxy.getToxic(toxic.name)).toJson(), toxic.toJson());
    await look();
    const updated = await toxic.update({ attributes, toxicity: 0 });
    assert.equal(updated.toxicity, 0);
    assert.equal((await exchange(proxy.listen, 5)).bytes, 5);
    await toxic.remove();
    await assert.rejects(proxy.getToxic(toxic.name), /status code 404/);
  };
  await under("latency", { latency: 80, jitter: 10 }, async () => {
    const seen = await exchange(proxy.listen, 5);
    assert.ok(seen.first >= 69, `${seen.first} ms`);
  });
  await under("bandwidth", { rate: 1_000 }, async () => {
    const seen = await exchange(proxy.listen, SIZE);
    assert.equal(seen.bytes, SIZE);
    assert.ok(seen.millis >= 195 && seen.millis < 400, `${seen.millis} ms`);
  });
  await under("slow_close", { delay: 100 }, async () => {
    const seen = await exchange(proxy.listen, 5);
    assert.ok(seen.ended === "end" && seen.millis >= 99 && seen.first < 99, JSON.stringify(seen));
  });
  await under("timeout", { timeout: 100 }, async () => {
    const seen = await exchange(proxy.listen, 5);
    assert.ok(seen.ended === "end" && seen.bytes === 0 && seen.millis >= 99, JSON.stringify(seen));
  }, "upstream");
  await under("reset_peer", { timeout: 50 }, async () => {
    const seen = await exchange(proxy.listen, 5);
    assert.ok(seen.ended === "ECONNRESET" && seen.bytes === 0 && seen.millis >= 49, JSON.stringify(seen));
  });
  await under("slicer", { average_size: 1_000, size_variation: 100, delay: 2_000 }, async () => {
    const seen = await exchange(proxy.listen, 20_000);
    assert.equal(seen.bytes, 20_000);
    assert.ok(seen.pieces >= 10 && seen.millis >= 36, JSON.stringify(seen));
  });
  await under("limit_data", { bytes: 1_234 }, async () => {
    const seen = await exchange(proxy.listen, 20_000);
    assert.ok(seen.ended === "end" && seen.bytes === 1_234, JSON.stringify(seen));
  });
  const bad = (body) => assert.rejects(proxy.addToxic(body), /status code 400/);
  await bad({ type: "nothing", attributes: {} });
  await bad({ type: "latency", stream: "sideways", attributes: {} });
  await bad({ type: "latency", attributes: { latency: "soon" } });

  await proxy.addToxic({ type: "timeout", attributes: { timeout: 0 } });
  await client.reset();
  assert.equal((await exchange(proxy.listen, 5)).bytes, 5);
}

async function main() {
  const upstream = `127.0.0.1:${await echo()}`;
  const client = new Toxiproxy(url);
  const proxy = await calls(client, upstream);
  await toxics(client, proxy);
  await proxy.remove();
  assert.deepEqual(await client.getAll(), {});
  console.log("toxiproxy-node-client: every call and every toxic");
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
