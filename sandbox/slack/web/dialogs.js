// Modals of the app, and the small dialog that asks "are you sure".

import { blocks } from "./blocks.js";
import { el, fill, put } from "./dom.js";
import { icon } from "./icons.js";
import { text, words } from "./text.js";

let shown = null; // {dialog, view, host}

// Show the view on top, or nothing. What was typed into a view stays when the app changes it.
export function showModal(view, host) {
  if (!view) {
    if (shown) {
      const { dialog } = shown;
      shown = null;
      dialog.close();
      dialog.remove();
    }
    return;
  }
  if (shown && shown.view.id === view.id && shown.view.hash === view.hash) return;
  if (!shown) {
    const dialog = el("dialog.modal", { "aria-labelledby": "modal-title" });
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); dismiss(); });
    document.body.append(dialog);
    shown = { dialog };
    dialog.showModal();
  }
  shown.view = view;
  shown.host = host;
  drawModal();
}

function dismiss() {
  if (!shown) return;
  shown.host.close(shown.view.id);
}

function drawModal() {
  const { dialog, view, host } = shown;
  const context = host.surface({ view: view.id }, view.id);
  const body = el("div.modal-body", {}, blocks(view.blocks, context));
  const problem = el("p.modal-problem", { role: "alert", hidden: true });
  const submit = view.submit && el("button.button.button-submit", { type: "submit" }, el("span.button-label", {}, words(view.submit)));
  const form = el(
    "form", { novalidate: true },
    el("header.modal-head", {}, el("img", { src: "web/icon.svg", alt: "", width: 28, height: 28 }), el("h2", { id: "modal-title" }, words(view.title)), el("button.icon-button", { type: "button", "aria-label": "Close", onclick: dismiss }, icon("close", 20))),
    body,
    problem,
    el("footer.modal-foot", {}, el("button.button", { type: "button", onclick: dismiss }, view.close ? words(view.close) : view.submit ? "Cancel" : "Close"), submit),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!submit || submit.disabled) return;
    busy(submit, true);
    complain(form, {});
    problem.hidden = true;
    const done = await host.submit(context.values);
    if (!shown || shown.view.id !== view.id || !form.isConnected) return;
    busy(submit, false);
    if (done.errors) complain(form, done.errors);
    if (done.problem) {
      problem.hidden = false;
      fill(problem, icon("problem", 16), done.problem);
    }
  });
  fill(dialog, form);
  body.querySelector("input:not([type=checkbox]):not([type=radio]), textarea, select")?.focus();
}

function busy(button, is) {
  button.disabled = is;
  button.setAttribute("aria-busy", String(is));
  button.classList.toggle("busy", is);
}

// Errors under their inputs; the first one gets the focus.
function complain(form, errors) {
  let first = null;
  for (const block of form.querySelectorAll(".block-input")) {
    const wrong = errors[block.dataset.block];
    const line = block.querySelector(".input-error");
    block.classList.toggle("wrong", Boolean(wrong));
    line.hidden = !wrong;
    fill(line, wrong ? [icon("problem", 14), wrong] : []);
    const field = block.querySelector("input, textarea, select");
    field?.setAttribute("aria-invalid", String(Boolean(wrong)));
    if (wrong && !first) first = field;
  }
  first?.focus();
}

// A confirmation dialog; true for yes.
export function ask(confirm) {
  return new Promise((resolve) => {
    const style = confirm.style === "danger" ? ".button-danger" : ".button-submit";
    const dialog = el("dialog.modal.confirm", { "aria-labelledby": "confirm-title" });
    const answer = (yes) => () => { dialog.close(); dialog.remove(); resolve(yes); };
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); answer(false)(); });
    put(
      dialog,
      el("header.modal-head", {}, el("h2", { id: "confirm-title" }, words(confirm.title)), el("button.icon-button", { type: "button", "aria-label": "Close", onclick: answer(false) }, icon("close", 20))),
      el("div.modal-body", {}, text(confirm.text)),
      el("footer.modal-foot", {}, el("button.button", { type: "button", onclick: answer(false) }, words(confirm.deny)), el(`button.button${style}`, { type: "button", "data-confirm": "yes", onclick: answer(true) }, words(confirm.confirm))),
    );
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[data-confirm]").focus();
  });
}
