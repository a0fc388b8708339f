// Keeps a page true: takes its content from the stream whenever it has changed, says when there is no news, and lets its map be
// zoomed. Without it the page reloads itself, and all links and the search work.
"use strict";
{
  const live = document.getElementById("live");
  const sign = document.getElementById("stream");
  const band = document.getElementById("band");
  const source = new EventSource(live.dataset.events + location.search);
  const SILENCE = 45000; // ms: the watcher says something at least every 15 s
  let heard = performance.now(), news = new Date(), pending = null;

  // -- times ---------------------------------------------------------------------------------------------------------------
  const span = (ms) => {
    for (const [unit, size] of [["d", 864e5], ["h", 36e5], ["min", 6e4]]) if (ms >= 2 * size || (unit === "min" && ms >= size)) return `${Math.round(ms / size)} ${unit}`;
    return "";
  };
  const tell = () => { // each stamp with how long ago that is, by the watcher's own clock
    const at = live.querySelector("[data-at]")?.dataset.at;
    const now = Date.parse(at?.replace(" UTC", "Z").replace(" ", "T")) + (performance.now() - heard);
    for (const time of live.querySelectorAll("time:not(.bare)")) {
      time.dataset.text ??= time.textContent;
      const past = now - Date.parse(time.dateTime), long = span(Math.abs(past));
      time.textContent = time.dataset.text + (long ? ` · ${past > 0 ? `${long} ago` : `in ${long}`}` : "");
    }
  };

  // -- the map -------------------------------------------------------------------------------------------------------------
  let frame = null, held = null, moved = false; // frame: what the reader looks at, [x, y, width, height]; null = as it was drawn
  const map = () => live.querySelector("svg.map");
  const drawn = () => (frame ?? map().getAttribute("viewBox").split(" ").map(Number));
  const look = (to) => {
    const svg = map();
    if (!svg) return;
    svg.dataset.whole ??= svg.getAttribute("viewBox");
    frame = to;
    svg.setAttribute("viewBox", to ? to.join(" ") : svg.dataset.whole);
    svg.classList.toggle("zoomed", Boolean(to));
  };
  live.addEventListener("click", (event) => {
    const zoom = event.target.closest("[data-zoom]")?.dataset.zoom;
    if (zoom) {
      const [x, y, w, h] = drawn(), by = Number(zoom);
      look(by ? [x + (w * (1 - by)) / 2, y + (h * (1 - by)) / 2, w * by, h * by] : null);
    } else if (moved && event.target.closest("svg.map")) {
      event.preventDefault(); // the end of a drag is no click
    }
    moved = false;
  });
  live.addEventListener("pointerdown", (event) => {
    moved = false;
    if (event.target.closest("svg.map.zoomed")) held = { x: event.clientX, y: event.clientY, from: drawn() };
  });
  live.addEventListener("dragstart", (event) => { if (held) event.preventDefault(); });
  addEventListener("pointerup", () => { held = null; });
  live.addEventListener("pointermove", (event) => {
    if (!held) return;
    const scale = held.from[2] / map().clientWidth, dx = event.clientX - held.x, dy = event.clientY - held.y;
    if (!moved && Math.hypot(dx, dy) < 4) return;
    moved = true;
    look([held.from[0] - dx * scale, held.from[1] - dy * scale, held.from[2], held.from[3]]);
  });

  // -- news ----------------------------------------------------------------------------------------------------------------
  const settle = () => {
    for (const zoom of live.querySelectorAll(".zoom")) zoom.hidden = false;
    look(frame);
    tell();
  };
  const show = (html) => { // what the reader is at stays: focus, words in the search, what is scrolled and opened
    pending = null;
    const active = live.contains(document.activeElement) ? document.activeElement : null;
    const form = live.querySelector("form.search");
    const typing = form?.contains(active) ? { at: active.selectionStart, to: active.selectionEnd } : null;
    const href = active?.getAttribute("href"), zoom = active?.dataset.zoom;
    const scrolled = [...live.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    const opened = new Set([...live.querySelectorAll("details[open] > summary")].map((s) => s.textContent));
    live.innerHTML = html; // escaped by the server, as the page itself is
    if (form) live.querySelector("form.search")?.replaceWith(form);
    live.querySelectorAll("details").forEach((d) => { d.open = opened.has(d.firstElementChild.textContent); });
    [...live.querySelectorAll(".wide")].forEach((box, i) => { box.scrollLeft = scrolled[i] ?? 0; });
    settle();
    if (typing) {
      active.focus({ preventScroll: true });
      if (typing.at !== null && typing.at !== undefined) active.setSelectionRange(typing.at, typing.to);
    } else if (href || zoom) {
      live.querySelector(href ? `[href="${CSS.escape(href)}"]` : `[data-zoom="${zoom}"]`)?.focus({ preventScroll: true });
    }
    document.title = live.querySelector("[data-title]").dataset.title;
  };
  const alarm = (text) => {
    band.hidden = !text;
    if (band.textContent !== text) band.textContent = text;
    live.classList.toggle("old", Boolean(text));
  };
  const hear = () => { heard = performance.now(); news = new Date(); sign.textContent = "live"; alarm(""); };
  const missed = () => {
    const long = span(performance.now() - heard);
    sign.textContent = "not connected";
    alarm(`No news from the watcher since ${news.toISOString().slice(11, 19)} UTC${long ? ` (${long})` : ""}: it has ended, or cannot be reached. What is shown is as it was then.`);
  };

  source.addEventListener("page", (event) => {
    hear();
    const selected = getSelection();
    if (selected.isCollapsed || !live.contains(selected.anchorNode)) show(event.data);
    else pending = event.data; // not under the hand of who copies an id
  });
  document.addEventListener("selectionchange", () => { if (pending !== null && getSelection().isCollapsed) show(pending); });
  source.addEventListener("beat", hear);
  source.addEventListener("trouble", (event) => { heard = performance.now(); sign.textContent = "no answer"; alarm(event.data); });
  source.addEventListener("busy", () => { // as many readers as the watcher keeps up with
    source.close();
    sign.textContent = "reloads every 15 s";
    setTimeout(() => location.reload(), 15000);
  });
  source.addEventListener("error", missed);
  setInterval(() => {
    if (source.readyState !== EventSource.CLOSED && (performance.now() - heard > SILENCE || !band.hidden && sign.textContent === "not connected")) missed();
    tell();
  }, 10000);

  // -- the way back --------------------------------------------------------------------------------------------------------
  const back = document.querySelector("[data-back]");
  if (back) back.href = `../${sessionStorage.getItem("list") ?? ""}#items`;
  else sessionStorage.setItem("list", location.search);
  live.addEventListener("submit", (event) => { // what is empty is not asked for
    for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
  });
  settle();
}
