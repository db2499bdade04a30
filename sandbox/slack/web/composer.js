// Where one types: Enter sends, Shift+Enter breaks the line, "/" offers the commands.

import { el, fill } from "./dom.js";
import { icon } from "./icons.js";

const drafts = new Map(); // label -> what was being written there

export function composer({ id, label, commands, send }) {
  const list = el("div.offers", { id: `${id}-offers`, role: "listbox", "aria-label": "Commands", hidden: true });
  const text = el("textarea", {
    id, rows: 1, placeholder: label, "aria-label": label, "aria-controls": list.id, "aria-expanded": "false", "aria-autocomplete": "list", role: "combobox", spellcheck: "false",
  });
  text.value = drafts.get(label) || "";
  const button = el("button.send", { type: "submit", "aria-label": "Send", disabled: true }, icon("send", 16));
  let offered = [];
  let marked = 0;

  const mark = (index) => {
    marked = index;
    [...list.querySelectorAll("[role=option]")].forEach((node, at) => {
      node.setAttribute("aria-selected", String(at === marked));
      if (at === marked) { text.setAttribute("aria-activedescendant", node.id); node.scrollIntoView({ block: "nearest" }); }
    });
  };
  const offer = () => {
    const typed = text.value;
    offered = typed.startsWith("/") && !typed.includes(" ") ? commands.filter((it) => it.name.startsWith(typed)) : [];
    if (offered.length === 1 && offered[0].name === typed && !offered[0].usage) offered = [];
    list.hidden = offered.length === 0;
    text.setAttribute("aria-expanded", String(!list.hidden));
    text.removeAttribute("aria-activedescendant");
    fill(list, offered.length > 0 && el("p.offers-title", {}, "Commands matching ", el("strong", {}, typed)), offered.map((it, index) => el("button.offer", { type: "button", role: "option", id: `${id}-offer-${index}`, tabindex: -1, onclick: () => take(it) }, el("span.offer-name", {}, it.name, it.usage && el("span.offer-usage", {}, ` ${it.usage}`)), el("span.offer-about", {}, it.description, el("span.app-tag", {}, "Callboard")))));
    if (offered.length) mark(0);
  };
  const take = (command) => {
    text.value = `${command.name} `;
    changed();
    text.focus();
  };
  const changed = () => {
    drafts.set(label, text.value);
    button.disabled = !text.value.trim();
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight, 220)}px`;
    offer();
  };
  const submit = async () => {
    const typed = text.value;
    if (!typed.trim()) return;
    text.value = "";
    changed();
    await send(typed);
  };
  text.addEventListener("input", changed);
  text.addEventListener("blur", () => setTimeout(() => { if (document.activeElement !== text) list.hidden = true; }, 150));
  text.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!list.hidden && step) {
      event.preventDefault();
      mark((marked + step + offered.length) % offered.length);
    } else if (!list.hidden && (event.key === "Tab" || (event.key === "Enter" && offered[marked].name !== text.value))) {
      event.preventDefault();
      take(offered[marked]);
    } else if (!list.hidden && event.key === "Escape") {
      event.stopPropagation();
      list.hidden = true;
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  const form = el("form.composer", { onsubmit: (event) => { event.preventDefault(); submit(); } }, list, text, el("div.composer-foot", {}, el("span.composer-hint", {}, commands.length ? [el("kbd", {}, "/"), " for commands"] : "Commands work in the channel only"), button));
  requestAnimationFrame(changed);
  requestAnimationFrame(() => { list.hidden = true; });
  return form;
}
