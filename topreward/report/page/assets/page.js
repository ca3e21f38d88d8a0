"use strict";
// Draws what the page holds; computes no number but places on the screen. Text from outside goes into the document as
// text only (textContent, aria-label), and URLs are made here.
const topreward = (() => {
  const $ = (id) => document.getElementById(id);
  const run = JSON.parse($("run").textContent);
  const quiet = matchMedia("(prefers-reduced-motion: reduce)");
  const ROW = 56, MOST_ROWS = 60, LONG = 400, KEPT = 4;
  const CONTROLS = [["frozen", "frozen video"], ["reversed", "reversed"], ["other_instruction", "other instruction"], ["truth", "true progress"], ["second", "the other run"]];
  const state = { place: -1, time: 0, end: 1, view: null, hidden: new Set(), shown: new Set(["frozen", "truth", "second"]), order: [], episode: null, wanted: null };
  const cache = new Map(), waiting = new Map();
  let filmUrl = null, clock = null, drawn = null, chosenRow = null;

  // ---- small helpers
  function make(tag, attributes, ...inside) {
    const it = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "text") it.textContent = value;
      else if (name.startsWith("on")) it.addEventListener(name.slice(2), value);
      else it.setAttribute(name, value === true ? "" : value);
    }
    it.append(...inside.filter((x) => x !== null));
    return it;
  }
  function draw(tag, attributes, ...inside) {
    const it = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "text") it.textContent = value;
      else it.setAttribute(name, value);
    }
    it.append(...inside);
    return it;
  }
  const short = (text, most = LONG) => (text.length > most ? text.slice(0, most) + "…" : text);
  const number = (x, digits = 3) => (x === null || x === undefined ? "undef." : (Math.abs(x) >= 100 ? x.toFixed(0) : x.toFixed(digits)));
  const seconds = (t) => t.toFixed(t < 100 ? 2 : 1);
  const first = run.estimators[0];
  function colour(name) { return `var(--c${Math.max(0, run.estimators.indexOf(name)) % 5})`; }
  function clamp(x, low, high) { return Math.min(high, Math.max(low, x)); }

  // ---- the address names episode and time
  function readAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const place = run.episodes.findIndex((e) => e.id === asked.get("episode"));
    const time = Number.parseFloat(asked.get("t"));
    return { place, time: Number.isFinite(time) ? time : 0 };
  }
  function writeAddress() {
    if (state.place < 0) return;
    const told = new URLSearchParams({ episode: run.episodes[state.place].id, t: state.time.toFixed(2) });
    try { history.replaceState(null, "", "#" + told); } catch (refused) { /* a viewer that forbids it */ }
  }

  // ---- episodes: inline, or from the side, when they are shown
  function receive(place, data) {
    cache.set(place, data);
    while (cache.size > KEPT) cache.delete(cache.keys().next().value);
    for (const then of waiting.get(place) || []) then(data);
    waiting.delete(place);
  }
  function fetchEpisode(place) {
    if (cache.has(place)) return Promise.resolve(cache.get(place));
    const inline = $("episode-" + place);
    if (inline) { receive(place, JSON.parse(inline.textContent)); return Promise.resolve(cache.get(place)); }
    return new Promise((then, fail) => {
      waiting.set(place, [...(waiting.get(place) || []), then]);
      const script = make("script", { src: `${run.side}episode-${String(place).padStart(5, "0")}.js` });
      script.addEventListener("error", () => { waiting.delete(place); fail(new Error("its file is missing beside the page")); });
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    });
  }
  function filmOf(place, name) {
    const inline = $("film-" + place);
    if (!inline) return run.side + name;
    const packed = atob(inline.textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i += 1) bytes[i] = packed.charCodeAt(i);
    filmUrl = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    return filmUrl;
  }

  async function show(place, time = 0) {
    if (place < 0 || place >= run.episodes.length) return;
    state.place = place;
    state.wanted = place;
    markRow();
    let episode;
    try { episode = await fetchEpisode(place); } catch (failure) {
      episode = { ...run.episodes[place], curves: [], marks: {}, notes: [], truth: null, film: null, nofilm: "", error: `cannot be shown: ${failure.message}` };
    }
    if (state.wanted !== place) return; // another one was chosen meanwhile
    state.episode = episode;
    describe(episode);
    screen(episode, place);
    chooseView(state.view);
    seek(clamp(time, 0, state.end));
  }

  function describe(episode) {
    $("instructed").textContent = episode.instruction;
    const about = $("about");
    about.replaceChildren();
    if (episode.success !== null && episode.success !== undefined) {
      about.append(make("span", { class: episode.success ? "badge yes" : "badge no", text: episode.success ? "success" : "failure" }));
    }
    const facts = [episode.id, episode.split ? `split ${episode.split}` : null, episode.frames ? `${episode.frames} frames` : null];
    if (episode.size) facts.push(`${episode.size[0]}×${episode.size[1]} px`);
    const real = episode.curves.find((c) => c.control === "real" && c.lengths);
    if (real) facts.push(`${real.lengths.length} prefix${real.lengths.length === 1 ? "" : "es"}`);
    about.append(short(facts.filter(Boolean).join(" · ")));
    const said = $("said");
    said.replaceChildren();
    const tell = (text, kind) => said.append(make("li", { class: kind, text: short(text) }));
    if (episode.error) tell(`error: ${episode.error}`, "bad");
    if (episode.second && episode.second.error) tell(`the other run: error: ${episode.second.error}`, "bad");
    for (const curve of episode.curves) {
      if (curve.error && curve.error !== episode.error) tell(`${curve.estimator}, ${curve.control}: ${curve.error}`, "bad");
      else if (curve.failure && curve.control === "real") tell(`${curve.estimator}: no curve, the answer failed: ${curve.failure}`, "bad");
    }
    for (const note of episode.notes) tell(note, null);
    if (episode.other) tell(`the other instruction: ${episode.other}`, "soft");
  }

  // ---- the film
  const film = $("film");
  function screen(episode, place) {
    pause();
    if (filmUrl) { URL.revokeObjectURL(filmUrl); filmUrl = null; }
    const there = Boolean(episode.film);
    film.hidden = !there;
    $("nofilm").hidden = there;
    const times = episode.curves.flatMap((c) => c.times || []);
    state.end = Math.max(episode.duration || 0, ...times, 0.001);
    if (there) {
      film.style.aspectRatio = `${episode.size[0]} / ${episode.size[1]}`;
      film.src = filmOf(place, episode.film);
    } else {
      film.removeAttribute("src");
      film.load();
      $("nofilm").textContent = "No video: " + short(episode.nofilm || "it is not part of this page");
    }
    $("chart").setAttribute("aria-valuemax", state.end.toFixed(2));
  }
  const playing = () => (state.episode && state.episode.film ? !film.paused && !film.ended : clock !== null);
  function play() {
    if (!state.episode) return;
    if (state.time >= state.end - 0.05) seek(0);
    if (state.episode.film) film.play().catch(() => {});
    else { clock = { at: performance.now(), from: state.time }; }
    follow();
  }
  function pause() { film.pause(); clock = null; button(); }
  function button() {
    const on = playing();
    $("play").textContent = on ? "❚❚" : "▶";
    $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  }
  function follow() {
    button();
    if (!playing()) { writeAddress(); return; }
    if (state.episode.film) at(film.currentTime);
    else {
      at(Math.min(state.end, clock.from + (performance.now() - clock.at) / 1000 * Number($("speed").value)));
      if (state.time >= state.end) { pause(); return; }
    }
    requestAnimationFrame(follow);
  }
  function seek(time) {
    const to = clamp(time, 0, state.end);
    if (state.episode && state.episode.film) film.currentTime = Math.min(to, Math.max(0, state.episode.duration - 0.001));
    if (clock) clock = { at: performance.now(), from: to };
    at(to);
    writeAddress();
  }
  function at(time) {
    state.time = time;
    $("clock").textContent = `${seconds(time)} / ${seconds(state.end)} s`;
    const chart = $("chart");
    chart.setAttribute("aria-valuenow", time.toFixed(2));
    chart.setAttribute("aria-valuetext", `${seconds(time)} seconds. ${readout(time).map((r) => `${r.name} ${r.value}`).join(", ")}`);
    if (drawn) drawn.move(time);
    const thumbs = state.episode && state.episode.thumbs;
    if (thumbs) {
      let now = 0;
      thumbs.times.forEach((t, i) => { if (t <= time + 1e-6) now = i; });
      [...$("thumbs").children].forEach((it) => it.classList.toggle("now", Number(it.dataset.i) === now));
    }
  }
  film.addEventListener("play", follow);
  film.addEventListener("pause", button);
  film.addEventListener("ended", () => { at(state.end); button(); writeAddress(); });
  film.addEventListener("seeked", () => { if (film.paused && state.episode && state.episode.film && Math.abs(film.currentTime - state.time) > 0.3) at(film.currentTime); });
  film.addEventListener("error", () => {
    if (!state.episode || !state.episode.film || !film.getAttribute("src")) return;
    film.hidden = true; $("nofilm").hidden = false;
    $("nofilm").textContent = "No video: this viewer cannot play it, or its file is missing beside the page.";
    state.episode = { ...state.episode, film: null };
  });

  // ---- the curves
  function curvesOf(episode) {
    const all = episode.curves.map((c) => ({ ...c, second: false }));
    if (episode.second) all.push(...episode.second.curves.filter((c) => c.control === "real").map((c) => ({ ...c, second: true })));
    return all.filter((c) => c.views);
  }
  function visible(episode) {
    return curvesOf(episode).filter((c) => c.views[state.view] && !state.hidden.has(c.estimator) && (c.second ? state.shown.has("second") : c.control === "real" || state.shown.has(c.control)));
  }
  const isShare = (view) => view === "progress" || view === "probability";
  function readout(time) {
    if (!state.episode) return [];
    return visible(state.episode).filter((c) => c.control === "real").map((c) => {
      let k = -1;
      c.times.forEach((t, i) => { if (t <= time + 1e-6) k = i; });
      return { name: c.second ? `${c.estimator} (other run)` : c.estimator, estimator: c.estimator, value: k < 0 ? "–" : number(c.views[state.view][k]) };
    });
  }
  function chooseView(asked) {
    const episode = state.episode;
    const has = new Set(curvesOf(episode).flatMap((c) => Object.keys(c.views)));
    const known = run.views.filter((v) => has.has(v.key));
    const chosen = known.find((v) => v.key === asked) || known[0] || null;
    if (asked === null || chosen !== null) state.view = chosen ? chosen.key : state.view;
    const box = $("views");
    box.replaceChildren(...known.map((v) => make("label", {}, make("input", {
      type: "radio", name: "view", value: v.key, checked: v.key === state.view, onchange: () => { state.view = v.key; chooseView(v.key); $("views").querySelector(":checked").focus(); },
    }), v.name)));
    $("explained").textContent = chosen ? chosen.explained + (chosen.unit ? ` (${chosen.unit})` : "") : "There is no curve to show.";
    legend(episode);
    chart(episode);
    thumbs(episode);
    marks(episode);
  }
  function legend(episode) {
    const names = run.estimators.filter((n) => curvesOf(episode).some((c) => c.estimator === n && c.views[state.view]));
    $("curves").replaceChildren(...names.map((name) => {
      const real = curvesOf(episode).find((c) => c.estimator === name && c.control === "real" && !c.second);
      const swatch = make("span", { class: "swatch" });
      swatch.style.color = colour(name);
      const label = real ? `${name}  VOC ${real.voc === null ? "undef." : number(real.voc, 2)}` : name;
      return make("label", {}, make("input", { type: "checkbox", checked: !state.hidden.has(name), onchange: (e) => { state.hidden[e.target.checked ? "delete" : "add"](name); chart(episode); } }), swatch, label);
    }));
    const has = (key) => (key === "truth" ? Boolean(episode.truth) : key === "second" ? Boolean(episode.second) : episode.curves.some((c) => c.control === key && c.views));
    $("controls").replaceChildren(...CONTROLS.filter(([key]) => has(key)).map(([key, name]) => make("label", {}, make("input", {
      type: "checkbox", "data-control": key, checked: state.shown.has(key), onchange: (e) => { state.shown[e.target.checked ? "add" : "delete"](key); chart(episode); },
    }), key === "truth" && !isShare(state.view) ? `${name} (with progress and probability)` : name)));
  }
  function ticks(low, high, count) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const out = [];
    for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step) out.push(Math.abs(t) < step * 1e-6 ? 0 : t);
    return out;
  }
  function path(times, values, x, y) {
    let text = "", up = true;
    values.forEach((v, i) => {
      if (v === null) { up = true; return; }
      text += `${up ? "M" : "L"}${x(times[i]).toFixed(1)} ${y(v).toFixed(1)}`;
      up = false;
    });
    return text;
  }
  function chart(episode) {
    const box = $("chart");
    const width = Math.max(260, box.clientWidth || 600), height = 280, left = 46, right = 10, top = 10, bottom = 40;
    const shown = visible(episode);
    const truth = episode.truth && state.shown.has("truth") && isShare(state.view) ? episode.truth : null;
    const values = shown.flatMap((c) => c.views[state.view]).filter((v) => v !== null);
    let low = Math.min(...values), high = Math.max(...values);
    if (isShare(state.view)) { low = 0; high = 1; }
    if (!values.length && !truth) { low = 0; high = 1; }
    if (high - low < 1e-9) { low -= 0.5; high += 0.5; }
    const pad = (high - low) * 0.05;
    low -= pad; high += pad;
    const x = (t) => left + (t / state.end) * (width - left - right);
    const y = (v) => top + (1 - (v - low) / (high - low)) * (height - top - bottom);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true", focusable: "false" });
    for (const t of ticks(low, high, 5)) svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t) }), draw("text", { x: left - 7, y: y(t) + 4, "text-anchor": "end", text: String(Number(t.toPrecision(4))) }));
    for (const t of ticks(0, state.end, Math.max(2, Math.min(8, width / 90)))) svg.append(draw("text", { x: x(t), y: height - 6, "text-anchor": "middle", text: `${Number(t.toPrecision(4))} s` }));
    if (truth) svg.append(draw("path", { class: "curve truth", d: path(truth.times, truth.values, x, y) }));
    for (const c of [...shown].sort((a, b) => (a.control === "real") - (b.control === "real"))) {
      const line = draw("path", { class: `curve ${c.second ? "second" : c.control}`, d: path(c.times, c.views[state.view], x, y) });
      line.style.stroke = colour(c.estimator);
      svg.append(line);
      if (c.control === "real" && c.times.length <= 60) c.views[state.view].forEach((v, i) => {
        if (v === null) return;
        const dot = draw("circle", { cx: x(c.times[i]), cy: y(v), r: c.times.length === 1 ? 5 : 2.6 });
        dot.style.fill = colour(c.estimator);
        svg.append(dot);
      });
    }
    for (const mark of (episode.marks[first] || [])) svg.append(draw("rect", { class: `mark-${mark.kind}`, x: x(mark.start), width: Math.max(3, x(mark.end) - x(mark.start)), y: height - bottom + 8, height: 5, rx: 2 }));
    if (!values.length) svg.append(draw("text", { x: (left + width) / 2, y: height / 2, "text-anchor": "middle", text: episode.error ? "this episode is in error" : shown.length ? "no defined value" : "no curve in this view" }));
    const head = draw("line", { class: "playhead", y1: top, y2: height - bottom }), aim = draw("line", { class: "aim", y1: top, y2: height - bottom, visibility: "hidden" });
    svg.append(aim, head);
    box.replaceChildren(svg);
    drawn = {
      width, left, right, aim, x,
      move(time) { head.setAttribute("x1", x(time)); head.setAttribute("x2", x(time)); },
      time(clientX) { const r = svg.getBoundingClientRect(); return clamp((((clientX - r.left) * width) / r.width - left) / (width - left - right), 0, 1) * state.end; },
    };
    drawn.move(state.time);
  }
  function thumbs(episode) {
    const box = $("thumbs"), strip = episode.thumbs;
    box.hidden = !strip;
    box.replaceChildren();
    if (!strip || !drawn) return;
    const scale = (box.clientWidth || drawn.width) / drawn.width;
    let free = -1e9;
    strip.times.forEach((t, i) => {
      const place = clamp(drawn.x(t) * scale - strip.width / 2, 0, box.clientWidth - strip.width);
      if (place < free) return;
      free = place + strip.width + 2;
      const it = make("i", { "data-i": i });
      Object.assign(it.style, { left: `${place}px`, width: `${strip.width}px`, backgroundImage: `url("${strip.picture}")`, backgroundPosition: `-${i * strip.width}px 0` });
      it.addEventListener("click", () => seek(t));
      box.append(it);
    });
  }
  function marks(episode) {
    const signs = { drop: "▼", jump: "▲", stall: "▬", flat: "—" };
    $("marks").replaceChildren(...(episode.marks[first] || []).map((m) => make("li", {}, make("button", { type: "button", class: m.kind, text: `${signs[m.kind]} ${seconds(m.start)} s: ${m.text}`, onclick: () => seek(m.start) }))));
  }

  // ---- pointer and keyboard on the chart
  const box = $("chart");
  let dragging = false;
  box.addEventListener("pointerdown", (e) => { if (!drawn) return; dragging = true; box.setPointerCapture(e.pointerId); seek(drawn.time(e.clientX)); });
  box.addEventListener("pointermove", (e) => {
    if (!drawn) return;
    const time = drawn.time(e.clientX);
    if (dragging) seek(time);
    drawn.aim.setAttribute("visibility", "visible");
    drawn.aim.setAttribute("x1", drawn.x(time));
    drawn.aim.setAttribute("x2", drawn.x(time));
    const tip = $("tip");
    const lines = readout(time).map((r) => { const swatch = make("span", { class: "swatch" }); swatch.style.color = colour(r.estimator); return make("div", {}, swatch, make("span", { text: r.name }), make("b", { text: r.value })); });
    tip.replaceChildren(make("div", {}, make("span", { text: `${seconds(time)} s` })), ...lines);
    tip.hidden = false;
    const inside = e.clientX - box.getBoundingClientRect().left;
    tip.style.left = `${clamp(inside + 14, 0, Math.max(0, box.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = "12px";
  });
  const stop = () => { dragging = false; };
  box.addEventListener("pointerup", stop);
  box.addEventListener("pointercancel", stop);
  box.addEventListener("pointerleave", () => { $("tip").hidden = true; if (drawn) drawn.aim.setAttribute("visibility", "hidden"); });
  function step(by, fine) {
    const episode = state.episode;
    if (!episode) return;
    const real = episode.curves.find((c) => c.control === "real" && c.times);
    if (fine || !real) { seek(state.time + by * (episode.step || 0.1)); return; }
    const stops = by > 0 ? real.times.filter((t) => t > state.time + 0.01) : real.times.filter((t) => t < state.time - 0.01);
    seek(stops.length ? (by > 0 ? stops[0] : stops[stops.length - 1]) : by > 0 ? state.end : 0);
  }
  function neighbour(by) {
    if (!state.order.length) return;
    const here = state.order.indexOf(state.place);
    const next = here < 0 ? 0 : clamp(here + by, 0, state.order.length - 1);
    if (state.order[next] !== state.place) { show(state.order[next]); reveal(next); }
  }
  document.addEventListener("keydown", (e) => {
    if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || $("keys").open) return;
    const field = e.target.closest("input, select, textarea");
    const typing = field && !(field.type === "radio" || field.type === "checkbox");
    if (typing) { if (e.key === "Escape") e.target.blur(); return; }
    const inRadios = field && field.type === "radio";
    const act = {
      " ": () => (playing() ? pause() : play()), ArrowLeft: () => step(-1, e.shiftKey), ArrowRight: () => step(1, e.shiftKey),
      ArrowUp: () => neighbour(-1), ArrowDown: () => neighbour(1), Home: () => seek(0), End: () => seek(state.end),
      "?": help, "/": () => $("search").focus(), v: nextView,
    }[e.key];
    if (!act || (e.key === " " && e.target.closest("button, input")) || (inRadios && e.key.startsWith("Arrow"))) return;
    e.preventDefault();
    act();
  });
  function nextView() {
    const all = [...$("views").querySelectorAll("input")].map((i) => i.value);
    if (all.length) { state.view = all[(all.indexOf(state.view) + 1) % all.length]; chooseView(state.view); at(state.time); }
  }
  function help() { $("keys").showModal(); }
  $("help").addEventListener("click", help);
  $("play").addEventListener("click", () => (playing() ? pause() : play()));
  $("speed").addEventListener("change", () => { film.playbackRate = Number($("speed").value); });
  addEventListener("resize", () => { if (state.episode) { chart(state.episode); thumbs(state.episode); } rows(); });

  // ---- the list: only the rows in sight are in the document
  const ORDERS = [
    ["dataset", "in the dataset's order", (e, i) => i], ["worst", "lowest VOC first", (e) => blank(e.voc[first], -2)], ["best", "highest VOC first", (e) => -blank(e.voc[first], -2)],
    ["gap", "least above its frozen video first", (e) => blank(e.voc[first], -2) - blank(e.frozen[first], 0)],
    ["score", "lowest score first", (e) => blank(e.score[first], -1e9)], ["reach", "flattest first", (e) => blank(e.reach, -1)],
    ["marks", "most marks first", (e) => -e.marks.length], ["task", "by instruction", (e) => e.instruction], ["errors", "errors and failed answers first", (e) => (e.error ? 0 : Object.keys(e.failed).length ? 1 : 2)],
  ];
  if (run.compare) ORDERS.splice(1, 0, ["worse", "most below the first run", (e) => blank((e.difference || {})[first], 9)], ["better", "most above the first run", (e) => -blank((e.difference || {})[first], -9)]);
  const OUTCOMES = [
    ["all", "all episodes", () => true], ["yes", "successes", (e) => e.success === true], ["no", "failures", (e) => e.success === false], ["unknown", "without a label", (e) => e.success === null],
    ["error", "in error", (e) => Boolean(e.error)], ["answer", "failed answers", (e) => Object.keys(e.failed).length > 0], ["marked", "with a drop or a stall", (e) => e.marks.includes("drop") || e.marks.includes("stall")],
  ];
  function blank(value, instead) { return value === null || value === undefined ? instead : value; }
  function fill() {
    $("sort").replaceChildren(...ORDERS.map(([key, name]) => make("option", { value: key, text: name })));
    $("outcome").replaceChildren(...OUTCOMES.filter(([key, , test]) => key === "all" || run.episodes.some(test)).map(([key, name]) => make("option", { value: key, text: name })));
    const tasks = [...new Set(run.episodes.map((e) => e.instruction))].sort();
    $("instruction").replaceChildren(make("option", { value: "", text: tasks.length > 200 ? "all instructions (search for one)" : "all instructions" }), ...(tasks.length > 200 ? [] : tasks.map((t, i) => make("option", { value: String(i), text: short(t, 80) }))));
    const select = () => { arrange(tasks); };
    for (const id of ["sort", "outcome", "instruction"]) $(id).addEventListener("change", select);
    $("search").addEventListener("input", select);
    arrange(tasks);
  }
  function arrange(tasks) {
    const words = $("search").value.trim().toLowerCase();
    const test = OUTCOMES.find(([key]) => key === $("outcome").value)[2];
    const task = $("instruction").value === "" ? null : tasks[Number($("instruction").value)];
    const key = ORDERS.find(([name]) => name === $("sort").value)[2];
    const chosen = run.episodes.map((e, i) => i).filter((i) => {
      const e = run.episodes[i];
      return test(e) && (task === null || e.instruction === task) && (!words || `${e.id}\n${e.instruction}`.toLowerCase().includes(words));
    });
    const keys = new Map(chosen.map((i) => [i, key(run.episodes[i], i)]));
    chosen.sort((a, b) => (keys.get(a) < keys.get(b) ? -1 : keys.get(a) > keys.get(b) ? 1 : a - b));
    state.order = chosen;
    $("found").textContent = chosen.length === run.episodes.length ? `${chosen.length} episodes` : `${chosen.length} of ${run.episodes.length} episodes`;
    $("scroll").scrollTop = 0;
    rows();
  }
  const scroll = $("scroll");
  let asked = false;
  scroll.addEventListener("scroll", () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; rows(); }); } });
  function rows() {
    const list = $("rows"), inSight = Math.ceil((scroll.clientHeight || 600) / ROW);
    const from = clamp(Math.floor(scroll.scrollTop / ROW) - 8, 0, Math.max(0, state.order.length - 1));
    const until = Math.min(state.order.length, from + Math.min(MOST_ROWS, inSight + 16));
    list.style.height = `${state.order.length * ROW}px`;
    const here = document.activeElement && list.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    list.replaceChildren(...state.order.slice(from, until).map((place, k) => row(place, from + k)));
    if (here !== null) { const again = list.querySelector(`[data-place="${here}"]`); if (again) again.focus({ preventScroll: true }); }
  }
  function row(place, position) {
    const e = run.episodes[place];
    const mark = e.success === true ? "✓ " : e.success === false ? "✗ " : "";
    const numbers = make("span", { class: "numbers" });
    if (e.error) numbers.append(make("span", { class: "error", text: "error" }));
    else if (run.compare) { const d = (e.difference || {})[first]; numbers.append(d === null || d === undefined ? "undef." : `${d >= 0 ? "+" : "−"}${Math.abs(d).toFixed(2)}`, make("small", { text: "difference" })); }
    else if (e.failed[first]) numbers.append(make("span", { class: "error", text: "no answer" }));
    else numbers.append(number(e.voc[first], 2), make("small", { text: e.frozen[first] === undefined ? "VOC" : `frozen ${e.frozen[first] === null ? "flat" : number(e.frozen[first], 2)}` }));
    const item = make("li", { "aria-setsize": state.order.length, "aria-posinset": position + 1 }, make("button", { type: "button", "data-place": place, "aria-current": place === state.place ? "true" : null, onclick: () => show(place) },
      spark(e), make("span", {}, make("span", { class: "task", text: mark + short(e.instruction, 120) }), make("span", { class: "name", text: short(e.id, 120) })), numbers));
    item.style.top = `${position * ROW}px`;
    return item;
  }
  const all = run.episodes.flatMap((e) => (e.spark || []).filter((v) => v !== null));
  const LOW = all.reduce((a, b) => Math.min(a, b), Infinity), HIGH = all.reduce((a, b) => Math.max(a, b), -Infinity);
  function spark(e) {
    const svg = draw("svg", { class: "spark", viewBox: "0 0 64 32", "aria-hidden": "true" });
    if (e.spark && HIGH > LOW) {
      const many = e.spark.length;
      svg.append(draw("path", { d: path(e.spark.map((_, i) => i), e.spark, (i) => 2 + (many > 1 ? i / (many - 1) : 0.5) * 60, (v) => 29 - ((v - LOW) / (HIGH - LOW)) * 26) }));
    }
    return svg;
  }
  function markRow() {
    for (const it of $("rows").querySelectorAll("button")) { if (Number(it.dataset.place) === state.place) it.setAttribute("aria-current", "true"); else it.removeAttribute("aria-current"); }
  }
  function reveal(position) {
    const top = position * ROW;
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + ROW > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + ROW - scroll.clientHeight;
  }

  // ---- the whole run
  function results() {
    const out = $("results");
    if (run.compare) out.append(compared(run.compare));
    if (run.table) out.append(make("section", {}, make("h2", { text: "VOC beside its controls" }), table(run.table)));
    for (const name of run.estimators) {
      const spread = (run.distribution || {})[name], told = (run.success || {})[name];
      const group = make("div", { class: "panels" });
      if (spread && spread.real) group.append(histogram(name, spread));
      if (told) group.append(outcomes(name, told));
      if (told && told.calibration) group.append(calibration(name, told.calibration));
      if (group.children.length) out.append(group);
    }
    if (run.facts) out.append(make("section", {}, make("h2", { text: "What was run" }), facts(run.facts)));
    if (run.compare) out.append(make("section", {}, make("h2", { text: "The other run" }), facts(run.compare.facts)));
  }
  function facts(list) {
    const out = make("dl", { class: "facts" });
    for (const [name, value] of list) out.append(make("dt", { text: name }), make("dd", { text: short(value) }));
    return out;
  }
  function table(found) {
    const head = make("tr", {}, make("th", { scope: "col", text: "estimator" }), ...found.columns.map((c) => make("th", { scope: "col", text: c })));
    const body = found.rows.map((line) => make("tr", { class: line.mark === "(!)" ? "bad" : null }, make("th", { scope: "row", text: `${line.name} ${line.mark}`.trim() }),
      ...line.cells.map(([text, under]) => make("td", {}, text, under ? make("small", { text: under }) : null))));
    return make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Results table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  }
  function panel(title, under, picture, label) {
    picture.setAttribute("role", "img");
    picture.setAttribute("aria-label", label);
    return make("section", {}, make("h3", { text: title }), make("p", { text: under }), picture);
  }
  function histogram(name, found) {
    const bins = 20, width = 360, height = 130, base = height - 22;
    const count = (list) => { const out = new Array(bins).fill(0); for (const v of list) out[clamp(Math.floor(((v + 1) / 2) * bins), 0, bins - 1)] += 1; return out; };
    const real = count(found.real.voc), frozen = found.frozen ? count(found.frozen.voc) : null;
    const most = Math.max(1, ...real, ...(frozen || []));
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}` });
    const wide = (width - 20) / bins;
    for (let i = 0; i < bins; i += 1) {
      const up = (n) => (n / most) * (base - 8);
      svg.append(draw("rect", { class: "bar-real", x: 10 + i * wide, width: wide * 0.5, y: base - up(real[i]), height: up(real[i]) }));
      if (frozen) svg.append(draw("rect", { class: "bar-frozen", x: 10 + (i + 0.5) * wide, width: wide * 0.4, y: base - up(frozen[i]), height: up(frozen[i]) }));
    }
    svg.append(draw("line", { class: "grid", x1: 10, x2: width - 10, y1: base, y2: base }));
    for (const [v, where] of [[-1, "start"], [0, "middle"], [1, "end"]]) svg.append(draw("text", { x: 10 + ((v + 1) / 2) * (width - 20), y: height - 6, "text-anchor": where, text: String(v) }));
    const told = (what, f) => `${what}: ${f.voc.length} with a VOC${f.undefined ? `, ${f.undefined} without (flat, or failed)` : ""}`;
    const under = [told("real", found.real), found.frozen ? told("frozen", found.frozen) : null].filter(Boolean).join(" · ");
    return panel(`VOC of ${name}${found.frozen ? ", real (colour) and frozen (grey)" : ""}`, under, svg, `Histogram of the VOC of ${name}. ${under}`);
  }
  function outcomes(name, found) {
    const width = 360, height = 104, left = 62;
    const values = found.scores.map((s) => s[0]).filter((v) => v !== null);
    const low = Math.min(...values), high = Math.max(...values);
    const x = (v) => left + (high > low ? (v - low) / (high - low) : 0.5) * (width - left - 14);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}` });
    for (const [k, label] of ["success", "failure"].entries()) svg.append(draw("text", { x: 0, y: 30 + k * 34, text: label }));
    found.scores.forEach(([score, success], i) => { if (score !== null) svg.append(draw("circle", { class: success ? "dot-yes" : "dot-no", cx: x(score), cy: (success ? 26 : 60) + ((i * 7) % 11) - 5, r: 4 })); });
    if (found.threshold !== null && found.threshold >= low && found.threshold <= high) svg.append(draw("line", { class: "aim", x1: x(found.threshold), x2: x(found.threshold), y1: 16, y2: 78 }), draw("text", { x: clamp(x(found.threshold), 110, width - 60), y: 11, "text-anchor": "middle", text: `threshold ${number(found.threshold, 2)}` }));
    if (values.length) svg.append(draw("text", { x: left, y: 98, text: number(low, 2) }), draw("text", { x: width - 2, y: 98, "text-anchor": "end", text: number(high, 2) }));
    const under = `ROC-AUC ${found.auc} · accuracy ${found.accuracy} on ${found.tested} others (majority ${found.majority})`;
    return panel(`Success told by ${name}: ${found.score}`, under, svg, `Scores of successes and failures. ${under}`);
  }
  function calibration(name, found) {
    const size = 150, svg = draw("svg", { viewBox: `0 0 360 ${size + 30}` }), x = (p) => 40 + p * size, y = (p) => 6 + (1 - p) * size;
    svg.append(draw("line", { class: "grid", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }), draw("line", { class: "grid", x1: x(0), y1: y(0), x2: x(1), y2: y(0) }), draw("line", { class: "grid", x1: x(0), y1: y(0), x2: x(0), y2: y(1) }));
    const most = Math.max(1, ...found.counts);
    found.probability.forEach((p, i) => { if (p !== null) svg.append(draw("circle", { class: "bar-real", cx: x(p), cy: y(found.succeeded[i]), r: 3 + 5 * Math.sqrt(found.counts[i] / most) })); });
    svg.append(draw("text", { x: x(0.5), y: size + 24, "text-anchor": "middle", text: "probability said" }), ...["upwards: the share", "that succeeded;", "larger dots:", "more episodes"].map((text, i) => draw("text", { x: x(1) + 16, y: y(1) + 14 + 15 * i, text })));
    return panel(`Calibration of ${name}`, `expected calibration error ${found.ece}`, svg, `Reliability diagram of ${name}, expected calibration error ${found.ece}`);
  }
  function compared(found) {
    const head = ["estimator", "first", "second", "difference", "95 % interval, paired", "episodes"];
    const body = found.differences.map((d) => make("tr", {}, make("th", { scope: "row", text: d.estimator }), ...[d.first, d.second, d.mean, d.interval, `${d.pairs}${d.undefined ? ` (${d.undefined} undefined)` : ""}`].map((t) => make("td", { text: t }))));
    const under = `First: ${found.titles[0]}. Second (dashed): ${found.titles[1]}. ${found.shared} episodes in common; left out: ${found.left_out[0]} of the first, ${found.left_out[1]} of the second.`;
    return make("section", {}, make("h2", { text: "Two runs: VOC, second minus first" }), make("p", { text: short(under, 900) }),
      make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Differences" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((h) => make("th", { scope: "col", text: h })))), make("tbody", {}, ...body))));
  }

  // ---- colours
  const THEMES = ["auto", "light", "dark"];
  function theme(name) {
    if (name === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
    $("theme").setAttribute("aria-label", `Colours: ${name === "auto" ? "as the system" : name}`);
    $("theme").textContent = { auto: "◐", light: "☀", dark: "☾" }[name];
  }
  let themed = "auto";
  try { themed = localStorage.getItem("topreward-theme") || "auto"; } catch (refused) { /* no storage for files */ }
  if (!THEMES.includes(themed)) themed = "auto";
  theme(themed);
  $("theme").addEventListener("click", () => {
    themed = THEMES[(THEMES.indexOf(themed) + 1) % THEMES.length];
    theme(themed);
    try { localStorage.setItem("topreward-theme", themed); } catch (refused) { /* as above */ }
  });

  // ---- begin
  function begin() {
    $("title").textContent = short(run.compare ? `${run.compare.titles[0]}  ↔  ${run.compare.titles[1]}` : run.title, 240);
    if (run.single) document.body.classList.add("single");
    const failed = run.episodes.filter((e) => e.error).length;
    const partly = !run.compare && run.planned > run.episodes.length ? ` of ${run.planned}` : "";
    $("counts").textContent = run.single ? "" : `${run.episodes.length}${partly} episodes${failed ? `, ${failed} in error` : ""}`;
    for (const s of run.sentences || []) $("notices").append(make("p", { class: `notice ${s.level}`, text: s.text }));
    for (const note of run.notes) $("notices").append(make("p", { class: "notice warn", text: short(note) }));
    fill();
    results();
    const asked = readAddress();
    show(asked.place >= 0 ? asked.place : state.order[0] ?? 0, asked.place >= 0 ? asked.time : 0);
    if (asked.place > 0) reveal(state.order.indexOf(asked.place));
    addEventListener("hashchange", () => { const to = readAddress(); if (to.place >= 0 && to.place !== state.place) show(to.place, to.time); else if (to.place >= 0) seek(to.time); });
  }
  begin();
  return { receive, state };
})();
