"use strict";
const WINDOW_MS = 120000, EVERY_MS = 1000, RATE_MS = 10000, POOLS_SHOWN = 40;
const STANDINGS = {
  eligible: "in rotation", not_probed: "not probed yet", unreachable: "unreachable", stale_sample: "no recent answer",
  lag_time: "too far behind", lag_bytes: "too many bytes behind", lag_unknown: "lag unknown", wrong_timeline: "other timeline",
  fenced: "fenced off", wrong_system: "not of this cluster", wrong_role: "wrong role", drained: "drained",
};
const byId = (id) => document.getElementById(id);
const words = (label) => label.replaceAll("_", " ");

/* Elements: only ever text, never markup. */
function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}
function draw(parent, tag, className, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  element.setAttribute("class", className);
  for (const name in attributes) element.setAttribute(name, attributes[name]);
  parent.append(element);
  return element;
}
function say(element, text) { if (element.textContent !== text) element.textContent = text; }

/* Keeps one child per key, in order, made once and then only updated, so that what is under the pointer stays. */
function keyed(parent, items, keyOf, create, update) {
  parent.parts ??= new Map();
  const wanted = new Set(items.map(keyOf));
  for (const [key, part] of parent.parts) if (!wanted.has(key)) { part.element.remove(); parent.parts.delete(key); }
  items.forEach((item, position) => {
    let part = parent.parts.get(keyOf(item));
    if (!part) parent.parts.set(keyOf(item), part = create(item));
    if (parent.children[position] !== part.element) parent.insertBefore(part.element, parent.children[position] ?? null);
    update(part, item);
  });
}

/* Numbers for people. */
function digits(value) {
  const places = value >= 100 || value === 0 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: places });
}
function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds === 0) return "0 s";
  if (seconds < 0.001) return digits(seconds * 1e6) + " µs";
  if (seconds < 1) return digits(seconds * 1e3) + " ms";
  if (seconds < 120) return digits(seconds) + " s";
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  return days ? days + " d " + hours + " h" : hours ? hours + " h " + minutes + " min" : minutes + " min";
}
function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return digits(value) + " " + units[unit];
}
const rateText = (value) => digits(value) + "/s";
function lsnBytes(lsn) {
  const halves = (lsn ?? "").split("/").map((half) => parseInt(half, 16));
  return halves.length === 2 && halves.every(Number.isFinite) ? halves[0] * 2 ** 32 + halves[1] : null;
}

/* A series of (time, value) over the last two minutes. */
class History {
  points = [];
  push(at, value) {
    this.points.push([at, value]);
    while (this.points[0][0] < at - WINDOW_MS) this.points.shift();
  }
  /* The growth of a counter per second, over the last `span` of time. */
  rate(span) {
    const last = this.points.at(-1);
    const first = last && this.points.find((point) => point[0] >= last[0] - span - 100);
    return !first || first === last ? 0 : Math.max(0, (last[1] - first[1]) * 1000 / (last[0] - first[0]));
  }
}

/* A chart of one or two stacked layers; the pointer reads a value. */
class Chart {
  constructor(className, layers, format) {
    this.layers = layers; this.format = format; this.rows = [];
    this.element = make("div", "chart " + className);
    this.svg = draw(this.element, "svg", "", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" });
    this.areas = layers.map((layer) => draw(this.svg, "path", "area " + layer.fill, {}));
    this.trace = draw(this.svg, "path", "trace " + (layers[0].line ?? ""), {});
    draw(this.svg, "path", "base", { d: "M0 100H1000" });
    this.limit = draw(this.svg, "path", "limit", {});
    this.cursor = draw(this.svg, "path", "cursor", {});
    this.readout = make("span", "readout");
    this.readout.hidden = true;
    this.top = make("span");
    this.element.append(this.readout, make("div", "axis", make("span", "", "2 min ago"), this.top, make("span", "", "now")));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.pointer = null; this.read(); });
  }
  /* `rows`: [time, value of each layer ...]; `least`: the smallest full scale. */
  show(rows, now, least, limit) {
    this.rows = rows; this.now = now;
    const sum = (row) => row.slice(1).reduce((total, value) => total + value, 0);
    const peak = Math.max(0, ...rows.map(sum));
    const full = Math.max(peak * 1.12, least, limit && peak > limit / 3 ? limit * 1.25 : 0);
    const x = (at) => Math.max(0, 1000 - (now - at) * 1000 / WINDOW_MS).toFixed(1);
    const y = (value) => (100 - Math.min(1, value / full) * 100).toFixed(2);
    let floor = rows.map(() => 0);
    this.layers.forEach((_, layer) => {
      const ceiling = rows.map((row, index) => floor[index] + row[layer + 1]);
      const up = rows.map((row, index) => x(row[0]) + " " + y(ceiling[index]));
      const down = rows.map((row, index) => x(row[0]) + " " + y(floor[index])).reverse();
      this.areas[layer].setAttribute("d", rows.length > 1 ? "M" + up.concat(down).join("L") + "Z" : "");
      if (layer === 0) this.trace.setAttribute("d", rows.length > 1 && this.layers[0].line ? "M" + up.join("L") : "");
      floor = ceiling;
    });
    this.limit.setAttribute("d", limit && limit <= full ? "M0 " + y(limit) + "H1000" : "");
    say(this.top, rows.length > 1 ? "peak " + this.format(peak) : "");
    this.read();
  }
  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.pointer = (event.clientX - box.left) / box.width;
    this.read();
  }
  read() {
    const at = this.now - (1 - (this.pointer ?? 0)) * WINDOW_MS;
    const near = (best, row) => (!best || Math.abs(row[0] - at) < Math.abs(best[0] - at) ? row : best);
    const row = this.pointer === null || this.pointer === undefined ? null : this.rows.reduce(near, null);
    this.readout.hidden = !row;
    this.cursor.setAttribute("d", row ? "M" + (1000 - (this.now - row[0]) * 1000 / WINDOW_MS).toFixed(1) + " 0V100" : "");
    if (!row) return;
    const values = this.layers.map((layer, index) => (layer.name ? layer.name + " " : "") + this.format(row[index + 1]));
    say(this.readout, values.join(" · ") + " · " + Math.round((this.now - row[0]) / 1000) + " s ago");
  }
}

/* One database. */
function createDatabase() {
  const part = { counts: new Map(), rates: new History() };
  part.title = make("h2");
  part.clients = make("b"); part.waiting = make("b"); part.pinned = make("b"); part.p50 = make("b"); part.p99 = make("b");
  part.waitingFigure = make("span", "figure", part.waiting, " waiting");
  const head = make("div", "head", part.title, make("span", "figure", part.clients, " clients"), part.waitingFigure,
    make("span", "figure", part.pinned, " pinned"), make("span", "figure push", "p50 ", part.p50, "  ·  p99 ", part.p99));
  part.replicaRate = make("div", "big"); part.primaryRate = make("div", "big"); part.share = make("div", "big");
  part.chart = new Chart("", [{ name: "replicas", fill: "replica-fill" }, { name: "primary", fill: "primary-fill" }], rateText);
  const throughput = make("section", "card throughput", make("h3", "", "Requests"), make("div", "split",
    make("div", "", make("span", "key replica", "to replicas"), part.replicaRate),
    make("div", "", make("span", "key primary", "to the primary"), part.primaryRate),
    make("div", "", make("span", "soft", "share of the replicas"), part.share)), part.chart.element);
  part.reasons = make("ul", "reasons");
  part.reasonsTitle = make("h3");
  part.hosts = make("div", "hosts");
  part.rows = make("tbody");
  part.morePools = make("p", "empty");
  const headings = ["role", "host", "connections", "", "waiting", "longest wait"].map((text) => make("th", "", text));
  const pools = make("section", "card", make("h3", "", "Pools"), make("div", "table", make("table", "", make("thead", "", make("tr", "", ...headings)), part.rows)), part.morePools);
  part.element = make("section", "database", head, make("div", "routing", throughput, make("section", "card", part.reasonsTitle, part.reasons)), part.hosts, pools);
  return part;
}

function updateDatabase(part, database, now) {
  say(part.title, database.name);
  say(part.clients, digits(database.clients.connected));
  say(part.waiting, digits(database.clients.waiting));
  part.waitingFigure.classList.toggle("alert", database.clients.waiting > 0);
  say(part.pinned, digits(database.clients.pinned));
  say(part.p50, duration(database.durations.p50_seconds));
  say(part.p99, duration(database.durations.p99_seconds));
  updateRouting(part, database.routes, now);
  keyed(part.hosts, database.hosts, (host) => host.name, createHost, (hostPart, host) => updateHost(hostPart, host, database, now));
  updatePools(part, database.pools);
}

function updateRouting(part, routes, now) {
  const rates = { replica: 0, primary: 0 }, lately = { replica: 0, primary: 0 };
  const rows = routes.map((route) => {
    const key = route.route + " " + route.reason;
    if (!part.counts.has(key)) part.counts.set(key, new History());
    const history = part.counts.get(key);
    history.push(now, route.count);
    rates[route.route] += history.rate(EVERY_MS * 2);
    lately[route.route] += history.rate(RATE_MS);
    return { ...route, key, rate: history.rate(RATE_MS) };
  });
  part.rates.push(now, rates);
  part.chart.show(part.rates.points.slice(1).map(([at, rate]) => [at, rate.replica, rate.primary]), now, 1);
  const perSecond = (element, value) => element.replaceChildren(digits(value), make("small", "", " /s"));
  perSecond(part.replicaRate, lately.replica);
  perSecond(part.primaryRate, lately.primary);
  const busy = lately.replica + lately.primary > 0;
  const weight = (row) => (busy ? row.rate : row.count);
  const total = rows.reduce((sum, row) => sum + weight(row), 0);
  const replicas = rows.filter((row) => row.route === "replica").reduce((sum, row) => sum + weight(row), 0);
  say(part.share, total ? Math.round(replicas * 100 / total) + " %" : "–");
  say(part.reasonsTitle, busy ? "Why they go there, last 10 s" : "Why they went there, since the start");
  const shown = rows.filter((row) => weight(row) > 0).sort((a, b) => weight(b) - weight(a) || (a.key < b.key ? -1 : 1)).slice(0, 9);
  keyed(part.reasons, shown.length ? shown : [null], (row) => row?.key ?? "none", createReason, (reason, row) => {
    if (!row) return say(reason.name, "no request yet");
    say(reason.name, words(row.reason) + (row.route === "replica" ? " → replica" : " → primary"));
    reason.element.title = row.meaning;
    say(reason.value, busy ? rateText(row.rate) : digits(row.count));
    reason.fill.className = row.route;
    reason.fill.style.width = weight(row) * 100 / total + "%";
  });
}

function createReason(row) {
  const part = { name: make("span"), value: make("span", "soft"), fill: make("i") };
  part.element = make("li", "", part.name, part.value);
  if (row) part.element.append(make("span", "bar", part.fill));
  return part;
}

/* One host. */
function createHost(host) {
  const part = { name: make("div", "name"), role: make("span", "role"), address: make("span", "address"), standing: make("span", "pill push") };
  part.lag = new History(); part.position = new History(); part.wal = new History();
  part.big = make("div", "big"); part.beside = make("div", "soft"); part.chartPlace = make("div");
  part.flight = make("dd"); part.probe = make("dd"); part.lsn = make("code");
  part.element = make("article", "", make("div", "top", make("div", "", part.name, make("div", "", part.role, " ", part.address)), part.standing),
    make("div", "measure", part.big, part.beside), part.chartPlace,
    make("dl", "", make("dt", "", "in flight"), part.flight, make("dt", "", "probe"), part.probe, make("dt", "", "log position"), make("dd", "", part.lsn)));
  return part;
}

function updateHost(part, host, database, now) {
  const primary = host.role === "primary";
  part.element.className = "card host " + (["primary", "replica"].includes(host.role) ? host.role : "") + (host.eligible ? "" : " out");
  say(part.name, host.name); say(part.role, host.role); say(part.address, host.address);
  say(part.standing, STANDINGS[host.standing] ?? words(host.standing));
  part.standing.className = "pill push " + (host.eligible ? "good" : ["unreachable", "wrong_system", "fenced"].includes(host.standing) ? "bad" : "warn");
  part.standing.title = "circuit " + words(host.circuit);
  say(part.flight, digits(host.in_flight)); say(part.probe, duration(host.probe_latency_seconds)); say(part.lsn, host.lsn ?? "–");
  if (part.charted !== host.role) {
    part.charted = host.role;
    part.chart = primary ? new Chart("spark", [{ fill: "wal-fill", line: "wal-line" }], (value) => bytes(value) + "/s")
      : new Chart("spark", [{ fill: "lag-fill", line: "lag-line" }], duration);
    part.chartPlace.replaceChildren(part.chart.element);
  }
  const position = lsnBytes(host.lsn);
  if (position !== null) { part.position.push(now, position); part.wal.push(now, part.position.rate(EVERY_MS * 2)); }
  if (host.lag_seconds !== null) part.lag.push(now, host.lag_seconds);
  if (primary) {
    part.big.replaceChildren(bytes(part.position.rate(RATE_MS)), make("small", "", " /s of log written"));
    say(part.beside, "");
    part.chart.show(part.wal.points.slice(1), now, 1000);
  } else {
    const over = database.max_lag_seconds !== null && host.lag_seconds > database.max_lag_seconds;
    part.big.className = "big" + (over ? " over" : "");
    part.big.replaceChildren(duration(host.lag_seconds), make("small", "", host.lag_seconds === null ? " lag not known" : " behind"));
    say(part.beside, host.lag_bytes === null ? "" : bytes(host.lag_bytes));
    part.chart.show(part.lag.points, now, 0.01, database.max_lag_seconds);
  }
}

/* Pools: the busiest first. */
function updatePools(part, pools) {
  const order = [...pools].sort((a, b) => b.waiting - a.waiting || b.active - a.active || (a.user + a.host < b.user + b.host ? -1 : 1));
  keyed(part.rows, order.slice(0, POOLS_SHOWN), (pool) => JSON.stringify([pool.user, pool.host]), createPool, updatePool);
  const more = pools.length - POOLS_SHOWN;
  say(part.morePools, pools.length === 0 ? "No server connection has been asked for yet." : "and " + more + " more, less busy");
  part.morePools.hidden = pools.length > 0 && more <= 0;
  part.rows.parentElement.hidden = pools.length === 0;
}
function createPool(pool) {
  const part = { active: make("i", "active"), idle: make("i", "idle"), text: make("span", "soft"), waiting: make("td"), wait: make("td") };
  part.bar = make("div", "bar", part.active, part.idle);
  part.element = make("tr", "", make("td", "", pool.user), make("td", "", pool.host), make("td", "", part.bar), make("td", "", part.text), part.waiting, part.wait);
  return part;
}
function updatePool(part, pool) {
  part.active.style.width = pool.active * 100 / Math.max(1, pool.size_limit) + "%";
  part.idle.style.width = pool.idle * 100 / Math.max(1, pool.size_limit) + "%";
  part.bar.classList.toggle("full", pool.waiting > 0 && pool.active >= pool.size_limit);
  say(part.text, pool.active + " active, " + pool.idle + " idle, of " + pool.size_limit);
  say(part.waiting, pool.waiting ? digits(pool.waiting) : "–");
  say(part.wait, pool.waiting ? duration(pool.oldest_wait_seconds) : "–");
}

/* The whole page. */
function show(status) {
  const now = Date.now();
  if (show.uptime > status.uptime_seconds) { const main = byId("databases"); main.replaceChildren(); main.parts = undefined; }
  show.uptime = status.uptime_seconds;
  say(byId("about"), status.version + ", up " + duration(Math.floor(status.uptime_seconds)));
  keyed(byId("databases"), status.databases, (database) => database.name, createDatabase, (part, database) => updateDatabase(part, database, now));
  const hosts = status.databases.flatMap((database) => database.hosts);
  const out = hosts.filter((host) => !host.eligible);
  const headless = status.databases.filter((database) => !database.hosts.some((host) => host.role === "primary" && host.eligible));
  const [text, mood] = headless.length ? ["no primary for " + headless.map((database) => database.name).join(", "), "bad"]
    : out.length ? [out.length + " of " + hosts.length + " hosts out of rotation", "warn"]
    : ["all " + hosts.length + " hosts in rotation", "good"];
  say(byId("state"), text);
  byId("state").className = "pill push " + mood;
  document.title = (mood === "good" ? "" : "(!) ") + "pgyard: " + text;
}

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error("HTTP " + answer.status);
      show(await answer.json());
      refresh.seen = Date.now();
      byId("lost").hidden = true;
      byId("databases").classList.remove("old");
    } catch (error) {
      const age = refresh.seen ? " What is shown is " + duration(Math.round((Date.now() - refresh.seen) / 1000)) + " old." : "";
      say(byId("lost"), "pgyard does not answer." + age);
      byId("lost").hidden = false;
      byId("databases").classList.add("old");
      say(byId("state"), "no answer");
      byId("state").className = "pill push bad";
    }
  }
  setTimeout(refresh, EVERY_MS);
}
refresh();
