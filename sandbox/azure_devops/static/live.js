// Keeps a page fresh: asks whether anything changed and, if so, fetches the page again and swaps its [data-live] parts.
"use strict";

const EVERY = 1000; // milliseconds
let address = document.body.dataset.version;
let known = document.body.dataset.stamp;

function busy(part) {
  const focus = document.activeElement;
  if (part.contains(focus) && focus.matches("input, select, textarea")) return true;
  const chosen = [...part.querySelectorAll("option")].some((option) => option.selected && !option.defaultSelected && option.index > 0);
  return chosen || [...part.querySelectorAll("textarea, input")].some((field) => field.type !== "hidden" && field.value !== field.defaultValue);
}

function atEnd(tail) {
  return tail.scrollHeight - tail.scrollTop - tail.clientHeight < 40;
}

function swap(part, fresh) {
  if (busy(part) || part.innerHTML === fresh.innerHTML) return;
  const open = new Set([...part.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  const before = part.querySelector("[data-tail]");
  const stay = before && !atEnd(before) ? before.scrollTop : null;
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  part.replaceChildren(...fresh.childNodes);
  for (const one of part.querySelectorAll("details > summary")) if (open.has(one.textContent)) one.parentElement.open = true;
  const tail = part.querySelector("[data-tail]");
  if (tail) tail.scrollTop = stay ?? tail.scrollHeight;
  if (focused) part.querySelector(`[href="${CSS.escape(focused)}"]`)?.focus();
}

async function look() {
  if (document.hidden) return;
  try {
    const version = await (await fetch(address)).text();
    if (version !== known) {
      const page = new DOMParser().parseFromString(await (await fetch(location.href)).text(), "text/html");
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh) swap(part, fresh);
      }
      address = page.body.dataset.version;
      known = page.body.dataset.stamp;
    }
  } catch {
    // The sandbox is away; it may come back.
  }
}

function tick() {
  for (const part of document.querySelectorAll("[data-since]")) {
    const seconds = Math.max(0, Math.floor(Date.now() / 1000 - Number(part.dataset.since)));
    part.textContent =
      seconds < 1 ? "<1s" : seconds < 60 ? `${seconds}s` : seconds < 3600 ? `${Math.floor(seconds / 60)}m ${seconds % 60}s` : `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  }
}

for (const select of document.querySelectorAll("[data-submit]")) select.addEventListener("change", () => select.form.submit());
for (const tail of document.querySelectorAll("[data-tail]")) {
  const wanted = tail.querySelector(".wanted, :target");
  if (wanted) wanted.scrollIntoView({ block: "center" });
  else tail.scrollTop = tail.scrollHeight;
}
setInterval(look, EVERY);
setInterval(tick, 1000);
look();
