// The map of all locations, what it is colored by, and the panel of the location that is open.
// Numbers come as columns (datasets.json says which), details of a location from the file of its shard.
import { earcut, flatten, geoEqualEarthRaw, select, uPlot, zoom, zoomIdentity } from "./vendor.js";

const RADIANS = Math.PI / 180;
const DAY_MS = 86400000;
const DAY_ZERO = Date.UTC(2015, 0, 1) / DAY_MS; // columns.EPOCH
const NO_DAY = 65535, NO_CLOUD = 255;
const INDEX_SCALE = 1000;
const CLASS_COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5B4B8A", "#8C8200",
  "#A0522D", "#1c2329", "#7FB800", "#C2185B", "#00838F", "#7d8790"];
const STORED_COLOR = "#009E73";
const RAMP = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"]; // viridis
const MISSING_COLOR = "#c9ced3";
const SEASON_COLORS = ["#009E73", "#E69F00", "#D55E00", "#56B4E9", "#CC79A7", "#0072B2", "#7d8790", "#000000"];
const QUALITY = { 0: "good", 1: "marginal", 2: "snow", 3: "cloud", "-1": "quality not given" };
const QUALITY_COLORS = { 0: "#1c2329", 1: "#7d8790", 2: "#56B4E9", 3: "#CC79A7", "-1": "#1c2329" };
const CLICK_RADIUS_PX = 14;

const $ = (id) => document.getElementById(id);
const state = { dataset: null, columns: {}, xy: null, index: -1, transform: zoomIdentity };
let listing, gl, points, lines, fills, frameRequested = false, details = new Map();

// ---------------------------------------------------------------- reading

async function get(path, as) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${answer.statusText}`);
  return answer[as]();
}

function once(make) {
  let made;
  return () => (made ??= make());
}

async function readColumns(name, part) {
  const content = await get(`${name}/${part}.bin`, "arrayBuffer");
  const n = state.dataset.n, types = { Float32Array, Uint16Array, Uint8Array };
  for (const column of state.dataset.columns[part]) {
    state.columns[column.season ? `${column.name}/${column.season}` : column.name] =
      { ...column, values: new types[column.type](content, column.offset, n) };
  }
}

async function openDataset(name) {
  state.dataset = listing.datasets.find((dataset) => dataset.name === name) ?? listing.datasets[0];
  const dataset = state.dataset;
  Object.assign(state, { columns: {}, index: -1 });
  details = new Map();
  dataset.readIds ??= once(async () => (await get(`${dataset.name}/ids.txt`, "text")).trimEnd().split("\n"));
  await readColumns(dataset.name, "places");
  dataset.readSeasons = once(() => readColumns(dataset.name, "seasons"));
  const { lon, lat } = state.columns;
  state.xy = new Float32Array(2 * dataset.n);
  for (let i = 0; i < dataset.n; i++) {
    const [x, y] = geoEqualEarthRaw(lon.values[i] * RADIANS, lat.values[i] * RADIANS);
    state.xy[2 * i] = x;
    state.xy[2 * i + 1] = y;
  }
  gl.bindBuffer(gl.ARRAY_BUFFER, points.place);
  gl.bufferData(gl.ARRAY_BUFFER, state.xy, gl.STATIC_DRAW);
  $("dataset").value = dataset.name;
  $("notice").hidden = !dataset.notice;
  $("notice").textContent = dataset.notice ?? "";
  offer($("season"), dataset.seasons.map((season) => [season, season]));
  offer($("coloring"), colorings());
  await recolor();
  showAll();
}

function offer(list, options) {
  const before = list.value;
  list.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) list.value = before;
}

// ---------------------------------------------------------------- colors

function colorings() {
  const has = (name) => state.dataset.columns.seasons.some((column) => column.name === name);
  return [["biome", "Biome"], ...[["source", "Season source"], ["day", "Date of the scene"], ["cloud", "Cloud over the patch"],
    ["outcome", "Missing and why"], ["count", "Seasons stored"]].filter(([name]) => has(name === "count" ? "outcome" : name))];
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function ramp(share) {
  const at = Math.min(Math.max(share, 0), 1) * (RAMP.length - 1), i = Math.min(Math.floor(at), RAMP.length - 2);
  const [a, b] = [rgb(RAMP[i]), rgb(RAMP[i + 1])];
  return a.map((value, k) => Math.round(value + (at - i) * (b[k] - value)));
}

const classColor = (code, labels) =>
  labels[code] === "stored" ? STORED_COLOR : labels[code] === "none" ? MISSING_COLOR
    : CLASS_COLORS[Math.min(code, CLASS_COLORS.length - 1)];

// What a coloring is made of: a code per location, the color of each code, and how the legend names them.
function codes(coloring, season) {
  const n = state.dataset.n, seasons = state.dataset.seasons;
  if (coloring === "biome" || coloring === "source" || coloring === "outcome") {
    const column = state.columns[coloring === "biome" ? "biome" : `${coloring}/${season}`];
    return { of: column.values, labels: column.labels, colors: column.labels.map((_, i) => rgb(classColor(i, column.labels))) };
  }
  if (coloring === "count") {
    const of = new Uint8Array(n);
    for (const name of seasons) {
      const outcome = state.columns[`outcome/${name}`].values;
      for (let i = 0; i < n; i++) of[i] += outcome[i] === 0;
    }
    const labels = Array.from({ length: seasons.length + 1 }, (_, i) => `${i} of ${seasons.length}`);
    return { of, labels, colors: labels.map((_, i) => (i ? ramp(i / seasons.length) : rgb("#D55E00"))) };
  }
  const values = state.columns[`${coloring}/${season}`].values, none = coloring === "day" ? NO_DAY : NO_CLOUD;
  let low = Infinity, high = -Infinity;
  for (const value of values) if (value !== none) { low = Math.min(low, value); high = Math.max(high, value); }
  if (coloring === "cloud") low = 0;
  const of = new Uint8Array(n), span = high - low || 1;
  for (let i = 0; i < n; i++) of[i] = values[i] === none ? 255 : Math.round(254 * (values[i] - low) / span);
  const colors = Array.from({ length: 256 }, (_, i) => (i === 255 ? rgb(MISSING_COLOR) : ramp(i / 254)));
  const word = coloring === "day" ? (value) => new Date((value + DAY_ZERO) * DAY_MS).toISOString().slice(0, 10) : (value) => `${value} %`;
  return { of, colors, ends: high < low ? null : [word(low), word(high)], missing: of.includes(255) };
}

async function recolor() {
  const coloring = $("coloring").value || "biome", season = $("season").value;
  $("season").disabled = coloring === "biome" || coloring === "count";
  if (coloring !== "biome") await state.dataset.readSeasons();
  const found = codes(coloring, season), n = state.dataset.n, bytes = new Uint8Array(4 * n);
  const packed = new Uint32Array(bytes.buffer), table = found.colors.map(([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0);
  for (let i = 0; i < n; i++) packed[i] = table[found.of[i]];
  gl.bindBuffer(gl.ARRAY_BUFFER, points.color);
  gl.bufferData(gl.ARRAY_BUFFER, bytes, gl.STATIC_DRAW);
  writeLegend(found, $("coloring").selectedOptions[0].text, $("season").disabled ? "" : season);
  draw();
}

function writeLegend(found, title, season) {
  const list = element("ul"), counts = new Uint32Array(256);
  for (const code of found.of) counts[code]++;
  const parts = [element("p", {}, season ? `${title}, ${season}` : title)];
  if (found.labels) {
    found.labels.forEach((label, i) => counts[i] && list.append(entry(found.colors[i], `${label} (${counts[i].toLocaleString("en")})`)));
  } else {
    if (found.ends) {
      const bar = element("div", { class: "ramp", style: `background: linear-gradient(to right, ${RAMP.join(", ")})` });
      parts.push(bar, element("div", { class: "ends" }, element("span", {}, found.ends[0]), element("span", {}, found.ends[1])));
    }
    if (found.missing) list.append(entry(rgb(MISSING_COLOR), `no value (${counts[255].toLocaleString("en")})`));
  }
  $("legend").replaceChildren(...parts, list);
}

const entry = (color, text) =>
  element("li", {}, element("i", { style: `background: rgb(${color.join(",")})` }), text);

// ---------------------------------------------------------------- drawing

function program(vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, `#version 300 es\nprecision highp float;\n${source}`);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  const uniform = (name) => gl.getUniformLocation(made, name);
  return { made, view: uniform("view"), size: uniform("size"), color: uniform("flat_color") };
}

function prepareDrawing() {
  gl = $("canvas").getContext("webgl2", { antialias: true, alpha: true });
  if (!gl) throw new Error("this map needs WebGL 2, which this browser does not offer");
  points = program(
    `in vec2 place; in vec4 color; uniform vec4 view; uniform float size; out vec4 shade;
     void main() { gl_Position = vec4(place * view.xy + view.zw, 0., 1.); gl_PointSize = size; shade = color; }`,
    `in vec4 shade; out vec4 pixel; uniform float size;
     void main() { float r = 2. * length(gl_PointCoord - .5); if (size > 3. && r > 1.) discard;
       pixel = size > 5. && r > 1. - 2.4 / size ? vec4(shade.rgb * .55, 1.) : shade; }`,
  );
  lines = program(
    `in vec2 place; uniform vec4 view; void main() { gl_Position = vec4(place * view.xy + view.zw, 0., 1.); }`,
    `uniform vec4 flat_color; out vec4 pixel; void main() { pixel = flat_color; }`,
  );
  points.place = gl.createBuffer();
  points.color = gl.createBuffer();
  points.array = arrays(points, [["place", points.place, 2, gl.FLOAT, false], ["color", points.color, 4, gl.UNSIGNED_BYTE, true]]);
}

function arrays(of, attributes) {
  const array = gl.createVertexArray();
  gl.bindVertexArray(array);
  for (const [name, buffer, size, type, normalized] of attributes) {
    const at = gl.getAttribLocation(of.made, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, type, normalized, 0, 0);
  }
  return array;
}

function shape(coordinates, mode) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(coordinates), gl.STATIC_DRAW);
  return { array: arrays(lines, [["place", buffer, 2, gl.FLOAT, false]]), n: coordinates.length / 2, mode };
}

function prepareOutlines(land) {
  const project = ([lon, lat]) => geoEqualEarthRaw(lon * RADIANS, lat * RADIANS);
  const filled = [], coasts = [], net = [];
  const segments = (target, line) => line.slice(1).forEach((end, i) => target.push(...line[i], ...end));
  for (const polygon of land) {
    const flat = flatten(polygon);
    for (const at of earcut(flat.vertices, flat.holes, 2)) filled.push(...project([flat.vertices[2 * at], flat.vertices[2 * at + 1]]));
    for (const ring of polygon) segments(coasts, [...ring, ring[0]].map(project));
  }
  const parallel = (lat) => Array.from({ length: 91 }, (_, i) => project([-180 + 4 * i, lat]));
  const meridian = (lon) => Array.from({ length: 91 }, (_, i) => project([lon, -90 + 2 * i]));
  for (const lat of [-60, -30, 0, 30, 60]) segments(net, parallel(lat));
  for (let lon = -180; lon <= 180; lon += 60) segments(net, meridian(lon));
  fills = [
    { ...shape(filled, gl.TRIANGLES), color: [0.93, 0.925, 0.9, 1] },
    { ...shape(net, gl.LINES), color: [0.84, 0.86, 0.88, 1] },
    { ...shape(coasts, gl.LINES), color: [0.49, 0.53, 0.56, 1] },
  ];
}

function view() {
  const { width, height } = $("canvas"), ratio = devicePixelRatio, { x, y, k } = state.transform;
  return [2 * k * ratio / width, 2 * k * ratio / height, 2 * x * ratio / width - 1, 1 - 2 * y * ratio / height];
}

function draw() {
  if (frameRequested) return;
  frameRequested = true;
  requestAnimationFrame(paint);
}

function paint() {
  frameRequested = false;
  const started = performance.now(), canvas = $("canvas");
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(0.969, 0.98, 0.988, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  gl.useProgram(lines.made);
  gl.uniform4fv(lines.view, view());
  for (const part of fills) {
    gl.uniform4fv(lines.color, part.color);
    gl.bindVertexArray(part.array);
    gl.drawArrays(part.mode, 0, part.n);
  }
  gl.useProgram(points.made);
  gl.uniform4fv(points.view, view());
  gl.bindVertexArray(points.array);
  const size = devicePixelRatio * pointSize();
  gl.uniform1f(points.size, size);
  gl.drawArrays(gl.POINTS, 0, state.dataset.n);
  if (state.index >= 0) {
    gl.uniform1f(points.size, Math.max(1.8 * size, 14 * devicePixelRatio));
    gl.drawArrays(gl.POINTS, state.index, 1);
  }
  performance.measure("paint", { start: started, end: performance.now() });
}

// Few points are large ones; zooming in makes them grow.
function pointSize() {
  const few = Math.min(Math.max(220 / Math.sqrt(state.dataset.n), 1.5), 9);
  return Math.min(few * Math.max(1, Math.sqrt(state.transform.k / 150)), 11);
}

// ---------------------------------------------------------------- moving

const zoomer = zoom().scaleExtent([40, 4e6]).clickDistance(4).on("zoom", (event) => {
  state.transform = event.transform;
  draw();
});

function fit(west, east, south, north) {
  const { clientWidth: width, clientHeight: height } = $("canvas");
  const k = 0.92 * Math.min(width / Math.max(east - west, 1e-4), height / Math.max(north - south, 1e-4));
  const to = zoomIdentity.translate(width / 2 - k * (west + east) / 2, height / 2 + k * (south + north) / 2).scale(k);
  select($("canvas")).call(zoomer.transform, to);
}

function showAll() {
  let [west, east, south, north] = [Infinity, -Infinity, Infinity, -Infinity];
  for (let i = 0; i < state.xy.length; i += 2) {
    west = Math.min(west, state.xy[i]); east = Math.max(east, state.xy[i]);
    south = Math.min(south, state.xy[i + 1]); north = Math.max(north, state.xy[i + 1]);
  }
  if (state.dataset.n) fit(west, east, south, north);
}

function resize() {
  const canvas = $("canvas");
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * devicePixelRatio));
  if (state.dataset) draw();
}

function nearest(x, y, radius = Infinity) {
  const { x: left, y: top, k } = state.transform, px = (x - left) / k, py = (top - y) / k, xy = state.xy;
  let best = -1, smallest = (radius / k) ** 2;
  for (let i = 0, j = 0; i < xy.length; i += 2, j++) {
    const distance = (xy[i] - px) ** 2 + (xy[i + 1] - py) ** 2;
    if (distance < smallest) { smallest = distance; best = j; }
  }
  return best;
}

function moved(event) {
  const canvas = select($("canvas")), step = 60;
  const ways = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
  if (ways[event.key]) {
    canvas.call(zoomer.translateBy, ...ways[event.key].map((length) => length / state.transform.k));
  } else if (event.key === "+" || event.key === "=") canvas.call(zoomer.scaleBy, 1.6);
  else if (event.key === "-") canvas.call(zoomer.scaleBy, 1 / 1.6);
  else if (event.key === "Enter") open(nearest($("canvas").clientWidth / 2, $("canvas").clientHeight / 2));
  else return;
  event.preventDefault();
}

// ---------------------------------------------------------------- one location

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function shardDetails(shard) {
  if (!details.has(shard)) details.set(shard, get(`${state.dataset.name}/${shard}.json`, "json"));
  return details.get(shard);
}

async function open(index) {
  if (index < 0) return;
  state.index = index;
  draw();
  const { name, per_shard: perShard } = state.dataset, shard = Math.floor(index / perShard);
  let place;
  try {
    place = (await shardDetails(shard))[index % perShard];
  } catch (error) {
    details.delete(shard);
    throw error;
  }
  if (state.index !== index) return;
  history.replaceState(null, "", `#${new URLSearchParams({ dataset: name, location: place.id })}`);
  const parts = [element("h2", { id: "title" }, place.id), element("p", { class: "quiet" }, about(place))];
  if (place.seasons.some((season) => season.story)) parts.push(quicklooks(place, shard));
  parts.push(...greenness(place), ...place.seasons.flatMap(seasonStory));
  $("place").replaceChildren(...parts);
  drawCurve(place);
  if (matchMedia("(max-width: 55rem)").matches) $("place").scrollIntoView();
  $("status").textContent = `Location ${place.id} is open.`;
}

function about(place) {
  const [north, east] = [place.lat < 0 ? "S" : "N", place.lon < 0 ? "W" : "E"];
  const words = [`${Math.abs(place.lat).toFixed(4)}° ${north}, ${Math.abs(place.lon).toFixed(4)}° ${east}`,
    place.biome, place.ecoregion, place.is_mountain ? "in mountains" : "", place.split];
  return words.filter(Boolean).join(" · ");
}

function quicklooks(place, shard) {
  const px = listing.quicklook_px, columns = listing.quicklook_columns, grid = element("div", { class: "looks" });
  for (const season of place.seasons) {
    let shown;
    if (season.picture === undefined) shown = element("div", { class: "look none" }, "no patch");
    else {
      shown = element("canvas", { class: "look", width: px, height: px, role: "img",
        "aria-label": `True color patch of ${place.id} in ${season.season}, ${season.date}` });
      const picture = new Image();
      picture.onload = () => shown.getContext("2d").drawImage(picture,
        px * (season.picture % columns), px * Math.floor(season.picture / columns), px, px, 0, 0, px, px);
      picture.src = `${state.dataset.name}/${shard}.jpg`;
    }
    const words = [season.season];
    if (season.date) words.push(season.date.replaceAll("-", "\u2011"), `${season.days_from_target < 0 ? "−" : "+"}${Math.abs(season.days_from_target)} days`);
    if (season.cloud !== undefined) words.push(`cloud ${season.cloud} %`);
    grid.append(element("figure", {}, shown, element("figcaption", {}, words.join(", "))));
  }
  return grid;
}

function seasonStory(season, i) {
  const chip = element("i", { style: `background: ${SEASON_COLORS[i % SEASON_COLORS.length]}55` });
  const parts = [element("h3", {}, chip, season.season), element("p", { class: "key" }, season.words)];
  if (season.story) parts.push(element("ol", { style: "list-style: none; padding: 0" }, ...season.story.map((line) => element("li", {}, line))));
  return parts;
}

function greenness(place) {
  if (!place.greenness) return place.index ? [element("p", { class: "quiet" }, "There is no greenness series here.")] : [];
  const seen = [...new Set(place.greenness.quality)].map((code) => QUALITY[code]).join(", ");
  const words = `${place.index} over time: observations (${seen}), the fitted curve, and the windows of the seasons.`;
  return [element("div", { id: "curve", role: "img", "aria-label": words }), element("p", { class: "key" }, words)];
}

function drawCurve(place) {
  const box = $("curve");
  if (!box) return;
  const { day, value, quality, curve } = place.greenness;
  const last = Math.max(day.at(-1), 0), first = Math.max(day[0], last - 3 * 365.25);
  const kinds = [...new Set(quality)], days = new Map();
  const put = (at, series, what) => (days.get(at) ?? days.set(at, []).get(at))[series] = what / INDEX_SCALE;
  if (curve) curve.value.forEach((what, i) => put(curve.start + curve.step * i, 0, what));
  day.forEach((at, i) => put(at, 1 + kinds.indexOf(quality[i]), value[i]));
  const x = [...days.keys()].sort((a, b) => a - b);
  const series = [...Array(1 + kinds.length).keys()].map((i) => x.map((at) => days.get(at)[i] ?? (i ? null : undefined)));
  new uPlot({
    width: Math.max(200, box.clientWidth), height: 190, legend: { show: false }, cursor: { y: false },
    scales: { x: { min: first * 86400, max: last * 86400 } },
    axes: [{}, { label: place.index, labelSize: 18, size: 42 }],
    series: [{}, { stroke: "#0072B2", width: 1.6, spanGaps: true, points: { show: false } },
      ...kinds.map((code) => ({ stroke: QUALITY_COLORS[code], paths: () => null, points: { show: true, size: 4, fill: QUALITY_COLORS[code] } }))],
    hooks: { drawClear: [(plot) => shadeWindows(plot, place)] },
  }, [x.map((at) => at * 86400), ...series], box);
}

function shadeWindows(plot, place) {
  const { ctx, bbox } = plot, { min, max } = plot.scales.x;
  place.seasons.forEach((season, i) => {
    if (!season.window) return;
    ctx.fillStyle = `${SEASON_COLORS[i % SEASON_COLORS.length]}29`;
    for (const [start, end] of spans(season.window, min, max)) {
      const left = plot.valToPos(Math.max(start, min), "x", true), right = plot.valToPos(Math.min(end, max), "x", true);
      if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
    }
  });
}

function spans(window, min, max) {
  if (typeof window[0] === "string") return [window.map((date) => Date.parse(date) / 1000)];
  const years = [];
  for (let year = new Date(min * 1000).getUTCFullYear() - 1; year <= new Date(max * 1000).getUTCFullYear(); year++) {
    const start = Date.UTC(year, 0, 1) / 1000 + 86400 * (window[0] - 1);
    years.push([start, start + 86400 * window[1]]);
  }
  return years;
}

// ---------------------------------------------------------------- searching

async function find(text) {
  const query = text.trim(), numbers = query.match(/^(-?\d+(?:\.\d+)?)[\s,;]+(-?\d+(?:\.\d+)?)$/);
  if (!query) return;
  let index = -1;
  if (numbers) {
    const [lat, lon] = [Number(numbers[1]), Number(numbers[2])];
    if (Math.abs(lat) > 90 || Math.abs(lon) > 180) return say(`${query} is no place: latitude −90 to 90, longitude −180 to 180.`);
    const [x, y] = geoEqualEarthRaw(lon * RADIANS, lat * RADIANS), { x: left, y: top, k } = state.transform;
    index = nearest(left + k * x, top - k * y);
  } else {
    const ids = await state.dataset.readIds(), small = query.toLowerCase();
    index = ids.indexOf(query);
    if (index < 0) index = ids.findIndex((id) => id.toLowerCase() === small);
    if (index < 0) index = ids.findIndex((id) => id.toLowerCase().startsWith(small));
  }
  if (index < 0) return say(`No location of ${state.dataset.title} is called ${query}.`);
  goTo(index);
  await open(index);
}

function goTo(index) {
  const [x, y] = [state.xy[2 * index], state.xy[2 * index + 1]], { clientWidth: width, clientHeight: height } = $("canvas");
  const k = Math.max(state.transform.k, Math.min(40 / spacing(index), 1e6));
  select($("canvas")).call(zoomer.transform, zoomIdentity.translate(width / 2 - k * x, height / 2 + k * y).scale(k));
}

// Distance to the nearest other location, so that a search ends where neighbors are told apart.
function spacing(index) {
  const xy = state.xy, x = xy[2 * index], y = xy[2 * index + 1];
  let smallest = 0.1 ** 2;
  for (let i = 0; i < xy.length; i += 2) {
    const distance = (xy[i] - x) ** 2 + (xy[i + 1] - y) ** 2;
    if (distance > 0 && distance < smallest) smallest = distance;
  }
  return Math.sqrt(smallest);
}

function say(words) {
  $("status").textContent = words;
}

// Shows a failure where the reader looks.
const guarded = (work) => (...given) => Promise.resolve().then(() => work(...given)).catch((error) => {
  say(`This did not work: ${error.message}`);
  $("status").className = "failed";
});

// ---------------------------------------------------------------- start

async function start() {
  prepareDrawing();
  const [found, land] = await Promise.all([get("datasets.json", "json"), get("land.json", "json")]);
  listing = found;
  prepareOutlines(land);
  offer($("dataset"), listing.datasets.map((dataset) => [dataset.name, dataset.title]));
  new ResizeObserver(resize).observe($("canvas"));
  resize();
  const canvas = select($("canvas")).call(zoomer).on("dblclick.zoom", null);
  canvas.on("click", guarded((event) => open(nearest(event.offsetX, event.offsetY, CLICK_RADIUS_PX))));
  $("canvas").addEventListener("keydown", moved);
  $("in").onclick = () => canvas.call(zoomer.scaleBy, 2);
  $("out").onclick = () => canvas.call(zoomer.scaleBy, 0.5);
  $("all").onclick = showAll;
  $("dataset").onchange = guarded((event) => openDataset(event.target.value));
  $("coloring").onchange = $("season").onchange = guarded(recolor);
  $("search").onsubmit = (event) => { event.preventDefault(); guarded(find)($("query").value); };
  const wanted = new URLSearchParams(location.hash.slice(1));
  await openDataset(wanted.get("dataset"));
  if (wanted.get("location")) await find(wanted.get("location"));
  document.body.dataset.ready = "true";
}

guarded(start)();
