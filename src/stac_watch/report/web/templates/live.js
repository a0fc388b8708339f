// Keeps the status page true: takes the page's content from /events whenever it has changed. Without it the page reloads itself.
"use strict";
{
  const live = document.getElementById("live");
  const sign = document.getElementById("stream");
  const source = new EventSource("events" + location.search);

  const show = (html) => {
    const focused = document.activeElement?.getAttribute("href");
    const scrolled = [...live.querySelectorAll(".wide")].map((box) => box.scrollLeft);
    live.innerHTML = html; // escaped by the server, as the page itself is
    [...live.querySelectorAll(".wide")].forEach((box, i) => { box.scrollLeft = scrolled[i] ?? 0; });
    if (focused) live.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    document.title = live.querySelector("[data-title]").dataset.title;
  };

  source.addEventListener("page", (event) => {
    sign.textContent = "live";
    const selected = getSelection();
    if (selected.isCollapsed || !live.contains(selected.anchorNode)) show(event.data); // not under the hand of who copies an id
  });
  source.addEventListener("trouble", (event) => { sign.textContent = event.data; });
  source.addEventListener("busy", () => { // as many readers as the watcher keeps up with
    source.close();
    sign.textContent = "reloads every 15 s";
    setTimeout(() => location.reload(), 15000);
  });
  source.addEventListener("error", () => { sign.textContent = "not connected; what is shown may be old"; });
}
