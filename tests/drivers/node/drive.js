// node-postgres: what an application does in its day. Argument: the URL.
const assert = require("node:assert");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const { Client, Pool } = require("pg");
const { from: copyFrom, to: copyTo } = require("pg-copy-streams");

const url = process.argv[2];
const table = "driver_node";

async function statements(client) {
  await client.query(`DROP TABLE IF EXISTS ${table}`);
  await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, name text)`);
  await client.query(`INSERT INTO ${table} VALUES ($1, $2)`, [1, "one"]);
  const { rows } = await client.query(`SELECT name FROM ${table} WHERE id = $1`, [1]);
  assert.deepStrictEqual(rows, [{ name: "one" }]);
  for (let turn = 0; turn < 10; turn++) {
    const prepared = { name: "by-id", text: `SELECT id, name FROM ${table} WHERE id = $1`, values: [1] };
    assert.strictEqual((await client.query(prepared)).rows[0].name, "one");
  }
  const several = await client.query("SELECT 1 AS a; SELECT 2 AS b");
  assert.deepStrictEqual(several.map((one) => one.rows[0]), [{ a: 1 }, { b: 2 }]);
}

async function transactions(client) {
  await client.query("BEGIN");
  await client.query(`INSERT INTO ${table} VALUES (2, 'two')`);
  await client.query("COMMIT");
  await client.query("BEGIN");
  await client.query(`DELETE FROM ${table}`);
  await client.query("ROLLBACK");
  assert.strictEqual((await client.query(`SELECT count(*)::int AS n FROM ${table}`)).rows[0].n, 2);
}

async function copies(client) {
  const lines = Array.from({ length: 1000 }, (_, n) => `${n + 100}\tcopied ${n}\n`);
  await pipeline(Readable.from(lines), client.query(copyFrom(`COPY ${table} FROM STDIN`)));
  let text = "";
  for await (const chunk of client.query(copyTo(`COPY (SELECT id FROM ${table} WHERE id >= 100) TO STDOUT`))) text += chunk;
  assert.strictEqual(text.trim().split("\n").length, 1000);
}

async function failures(client) {
  for (const [wrong, code] of [
    ["SELECT * FROM no_such_table", "42P01"],
    ["SELECT 1/0", "22012"],
    [`INSERT INTO ${table} VALUES (1, 'again')`, "23505"],
  ]) {
    await assert.rejects(client.query(wrong), { code });
    await assert.rejects(client.query({ text: wrong, values: [] }), { code });
  }
  assert.strictEqual((await client.query("SELECT 1 AS a")).rows[0].a, 1);
}

async function cancels(client) {
  const cancelled = assert.rejects(client.query({ text: "SELECT pg_sleep(60)" }), { code: "57014" });
  // A request that comes before its statement does nothing, as with PostgreSQL: it is sent until the statement ends.
  const again = setInterval(() => {
    // A cancel request is a connection of its own; it needs the process id and the secret only.
    const { Connection } = require("pg");
    const request = new Connection({});
    request.on("error", () => {});
    request.connect(client.port, client.host);
    request.on("connect", () => request.cancel(client.processID, client.secretKey));
  }, 500);
  await cancelled.finally(() => clearInterval(again));
  // A request that was still under way may reach this one.
  await client.query("SELECT 1").catch((error) => assert.strictEqual(error.code, "57014"));
  assert.strictEqual((await client.query("SELECT 1 AS a")).rows[0].a, 1);
}

async function pools() {
  const pool = new Pool({ connectionString: url, max: 5 });
  const found = await Promise.all(Array.from({ length: 50 }, (_, n) => pool.query("SELECT $1::int AS n", [n])));
  assert.deepStrictEqual(found.map((one) => one.rows[0].n), Array.from({ length: 50 }, (_, n) => n));
  await pool.end();
}

async function main() {
  const client = new Client({ connectionString: url });
  await client.connect();
  for (const step of [statements, transactions, copies, failures, cancels]) {
    await step(client);
    console.log(step.name, "ok");
  }
  await pools();
  await client.query(`DROP TABLE ${table}`);
  await client.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
