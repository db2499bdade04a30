// The page: who you are, where you are, what is there. It draws what the server tells and sends what you do; it decides nothing.

import { blocks } from "./blocks.js";
import { composer } from "./composer.js";
import { ask, showModal } from "./dialogs.js";
import { el, fill, put, sync } from "./dom.js";
import { emoji, icon } from "./icons.js";
import { ago, date, known, mrkdwn } from "./text.js";

const at = (id) => document.getElementById(id);
const HOME = "home";

const state = {
  me: sessionStorage.getItem("me") || "",
  opened: null, // when this page was opened, by the server's clock: ephemeral messages before are forgotten
  told: null, // the latest whole state from the server
  channels: new Map(),
  messages: new Map(), // channel -> ts -> message
  ephemerals: new Map(), // ts -> message
  home: null,
  view: null,
  channel: "",
  thread: null, // ts
  tab: HOME,
  unread: new Set(),
  values: new Map(), // message ts -> inputs' values
  news: null,
  queue: null, // news that arrives while the whole state is on its way
};

// The server

async function send(what, body) {
  try {
    const response = await fetch(`api/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ user: state.me, ...body }) });
    if (response.ok) return await response.json();
  } catch {
    // told below
  }
  toast("The sandbox did not answer. Is it still running?");
  return { ok: false, problem: "The sandbox did not answer." };
}

function listen() {
  state.news?.close();
  const news = new EventSource(`api/news?user=${encodeURIComponent(state.me)}`);
  state.news = news;
  const mine = (handler) => (event) => { if (state.news === news) handler(JSON.parse(event.data)); };
  news.addEventListener("hello", mine(load));
  news.onerror = () => { if (state.news === news) at("connection").textContent = "Reconnecting…"; };
  for (const [kind, apply] of Object.entries(NEWS)) {
    news.addEventListener(kind, mine((body) => (state.queue ? state.queue.push([apply, body]) : (apply(body), schedule()))));
  }
}

async function load() {
  state.queue = [];
  const since = state.opened === null ? "" : `&since=${state.opened}`;
  const user = state.me; // nobody yet: the server chooses
  let told;
  try {
    const response = await fetch(`api/state?user=${encodeURIComponent(user)}${since}`);
    if (!response.ok) throw new Error(response.statusText);
    told = await response.json();
  } catch {
    state.queue = null;
    at("connection").textContent = "Reconnecting…";
    return;
  }
  if (state.me !== user) return; // somebody else by now
  state.opened ??= told.now;
  state.told = told;
  state.me = told.me;
  state.channels = new Map(told.channels.map((it) => [it.id, it]));
  state.messages = new Map(told.channels.map((it) => [it.id, new Map()]));
  for (const message of told.messages) state.messages.get(message.channel).set(message.ts, message);
  state.ephemerals = new Map(told.ephemerals.map((it) => [it.ts, it]));
  state.home = told.home;
  Object.assign(known, {
    me: told.me, people: new Map(told.people.map((it) => [it.id, it])), groups: told.groups, channels: state.channels,
    hosts: told.hosts, domain: told.domain, app: told.app, jump,
  });
  if (!state.channels.has(state.channel) && state.channel !== HOME) state.channel = told.start;
  const waiting = state.queue;
  state.queue = null;
  for (const [apply, body] of waiting) apply(body);
  at("connection").textContent = "";
  setView(told.view);
  frame();
  draw();
}

const NEWS = {
  message(message) {
    const there = state.messages.get(message.channel);
    if (!there) return;
    if (!there.has(message.ts) && message.channel !== shownChannel() && message.user !== state.me) state.unread.add(message.channel);
    there.set(message.ts, message);
  },
  removed({ channel, ts }) { state.messages.get(channel)?.delete(ts); },
  ephemeral(message) {
    state.ephemerals.set(message.ts, message);
    if (message.channel !== shownChannel()) state.unread.add(message.channel);
  },
  ephemeral_removed({ ts }) { state.ephemerals.delete(ts); },
  home({ view }) { state.home = view; },
  view({ view }) { setView(view); },
  notice({ text }) { toast(text); },
};

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

// Where we are

const appChannel = () => [...state.channels.values()].find((it) => it.im)?.id;
const shownChannel = () => (state.channel === HOME ? (state.tab === "messages" ? appChannel() : "") : state.channel);

function go(channel, thread = null) {
  state.channel = channel;
  state.thread = thread;
  if (channel === HOME) send("home", { tab: state.tab === HOME ? HOME : "messages" });
  showSide(false);
  frame();
  draw();
  scrollDown(at("scroll"));
  history.replaceState(null, "", `#${channel}${thread ? `/${thread}` : ""}`);
}

function jump(channel, ts, thread) {
  if (!state.channels.has(channel)) return;
  go(channel, thread);
  requestAnimationFrame(() => {
    const node = document.querySelector(`[data-ts="${CSS.escape(ts)}"]`);
    node?.scrollIntoView({ block: "center" });
    node?.classList.add("found");
    setTimeout(() => node?.classList.remove("found"), 2500);
  });
}

function become(user) {
  state.me = user;
  sessionStorage.setItem("me", user);
  state.unread.clear();
  state.values.clear();
  setView(null);
  listen();
}

function showSide(open) {
  at("frame").classList.toggle("side-open", open);
  at("burger").setAttribute("aria-expanded", String(open));
}

// The frame: sidebar, title, composer. Redrawn when one goes somewhere, not with every message.

function frame() {
  const { told } = state;
  fill(at("workspace"), told.workspace, el("span.workspace-tag", {}, "sandbox"));
  const channels = [...state.channels.values()].filter((it) => !it.im);
  const place = (id, sign, name, about) => el(`button.place-link${state.channel === id ? ".here" : ""}`, { type: "button", "aria-current": state.channel === id ? "page" : undefined, "data-place": id, onclick: () => go(id) }, sign, el("span.place-name", {}, name), about);
  fill(
    at("places"),
    el("h2", {}, "Channels"),
    channels.map((it) => place(it.id, icon("hash", 16), it.name)),
    el("h2", {}, "Apps"),
    place(HOME, avatar(told.app.user, 20), told.app.name),
  );
  drawMe();
  const channel = state.channels.get(state.channel);
  const isHome = state.channel === HOME;
  fill(at("place-title"), isHome ? [avatar(told.app.user, 28), told.app.name] : [icon("hash", 20), channel.name]);
  fill(at("place-about"), isHome ? "App" : [icon("people", 16), `${told.people.length} people`]);
  at("tabs").hidden = !isHome;
  if (!told.app.home) state.tab = "messages";
  const tab = (name, title) => el("button.tab", { type: "button", role: "tab", "aria-selected": String(state.tab === name), onclick: () => { state.tab = name; go(HOME); } }, title);
  fill(at("tabs"), isHome ? [told.app.home && tab(HOME, "Home"), tab("messages", "Messages")] : []);
  const onHome = isHome && state.tab === HOME;
  at("home").hidden = !onHome;
  at("scroll").hidden = onHome;
  at("composer").hidden = isHome;
  if (!isHome) fill(at("composer"), composer({ id: "composer-text", label: `Message #${channel.name}`, commands: told.commands, send: (text) => send("type", { channel: state.channel, text }) }));
  at("main").classList.toggle("is-home", isHome);
  document.title = `${isHome ? told.app.name : `#${channel.name}`} · ${told.workspace} (sandbox)`;
  frameThread();
}

function drawMe() {
  const me = known.people.get(state.me);
  const list = el("div.menu.people", { role: "menu", "aria-label": "Continue as", hidden: true });
  const toggle = el("button.me-button", { type: "button", id: "switch", "aria-haspopup": "menu", "aria-expanded": "false", title: "Be somebody else", onclick: () => show(list.hidden) }, avatar(me.id, 36), el("span.me-words", {}, el("span.me-name", {}, me.name), el("span.me-title", {}, me.guest ? `${me.title} · guest` : me.title)), icon("down", 16, "Switch person"));
  const show = (open) => {
    list.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    if (open) (list.querySelector('[aria-checked="true"]') || list.firstChild).focus();
  };
  put(list, el("p.menu-title", {}, "Continue as"), [...known.people.values()].map((it) => el("button", { type: "button", role: "menuitemradio", "aria-checked": String(it.id === state.me), "data-user": it.id, onclick: () => { show(false); become(it.id); } }, avatar(it.id, 28), el("span.me-words", {}, el("span.me-name", {}, it.name), el("span.me-title", {}, it.guest ? `${it.title} · guest` : it.title)), it.id === state.me && icon("check", 16))));
  list.addEventListener("keydown", (event) => {
    const items = [...list.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); items[(items.indexOf(document.activeElement) + step + items.length) % items.length].focus(); }
    if (event.key === "Escape") { show(false); toggle.focus(); }
  });
  document.addEventListener("click", (event) => { if (!at("me").contains(event.target)) show(false); });
  fill(at("me"), toggle, list);
}

function avatar(user, size) {
  const box = el("span.avatar", { "aria-hidden": "true" });
  box.style.setProperty("--size", `${size}px`);
  if (user === state.told.app.user) box.append(el("img", { src: "web/icon.svg", alt: "" }));
  else {
    const name = known.people.get(user)?.name || "Slackbot";
    box.classList.add(`face-${([...known.people.keys()].indexOf(user) + 6) % 6}`);
    box.append(name.split(" ").map((word) => word[0]).slice(0, 2).join(""));
  }
  return box;
}

// Messages

function draw() {
  if (!state.told) return;
  for (const node of document.querySelectorAll("[data-place]")) node.classList.toggle("unread", state.unread.has(node.dataset.place === HOME ? appChannel() : node.dataset.place) && node.dataset.place !== state.channel);
  if (state.channel === HOME && state.tab === HOME) drawHome();
  const channel = shownChannel();
  if (channel) {
    state.unread.delete(channel);
    const top = inChannel(channel).filter((it) => !it.thread_ts || it.thread_ts === it.ts || it.reply_broadcast);
    drawList(at("messages"), at("scroll"), top, { empty: beginning(channel) });
  }
  drawThread();
}

const inChannel = (channel) => [...state.messages.get(channel).values(), ...[...state.ephemerals.values()].filter((it) => it.channel === channel)].sort((a, b) => a.ts - b.ts);

function beginning(channel) {
  const it = state.channels.get(channel);
  if (state.told.shortened.includes(channel)) return el("li.beginning", {}, el("p", {}, "Older messages are not shown here."));
  if (it.im) return el("li.beginning", {}, el("h3", {}, state.told.app.name), el("p", {}, "What Callboard tells you alone appears here."));
  return el(
    "li.beginning", {},
    el("h3", {}, icon("hash", 26), it.name),
    el("p", {}, "This is the very beginning of the ", el("strong", {}, `#${it.name}`), " channel."),
    el("p.beginning-try", {}, "Try ", el("code", {}, "/retrain diabetes"), " or ", el("code", {}, "/mlops help")),
  );
}

function drawList(list, scroll, messages, { empty, replies = false, first = null } = {}) {
  const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 120;
  const items = [];
  if (empty) items.push({ key: "beginning", same: state.me + state.channel, make: () => empty });
  let before = null;
  for (const message of messages) {
    const day = new Date(message.ts * 1000).toDateString();
    if (!replies && (!before || new Date(before.ts * 1000).toDateString() !== day)) {
      items.push({ key: `day ${day}`, same: day, make: () => el("li.day", {}, el("span", {}, dayName(message.ts))) });
      before = null;
    }
    const follows = before && before.user === message.user && message.ts - before.ts < 300 && Boolean(before.is_ephemeral) === Boolean(message.is_ephemeral) && !before.reply_count;
    items.push({ key: message.ts, same: JSON.stringify([message, follows, replies, state.me, message.reply_count ? minute() : 0]), make: () => draw1(message, { follows, replies }) });
    before = message;
    if (first === message.ts) {
      const count = messages.length - 1;
      items.push({ key: "count", same: String(count), make: () => el("li.day.reply-count", {}, el("span", {}, count === 1 ? "1 reply" : `${count} replies`)) });
      before = null;
    }
  }
  const focused = document.activeElement?.dataset?.action;
  const within = document.activeElement?.closest?.("[data-key]")?.dataset.key;
  sync(list, items);
  if (focused && document.activeElement === document.body) list.querySelector(`[data-key="${CSS.escape(within || "")}"] [data-action="${CSS.escape(focused)}"]`)?.focus();
  if (near) scrollDown(scroll);
}

const scrollDown = (scroll) => requestAnimationFrame(() => { scroll.scrollTop = scroll.scrollHeight; });

function dayName(ts) {
  const day = date(Number(ts), "{date_long_pretty}").textContent;
  return day[0].toUpperCase() + day.slice(1);
}

const minute = () => Math.floor(Date.now() / 60_000); // "2 minutes ago" grows old
const clock = (ts) => date(Number(ts), "{time}");

function draw1(message, { follows, replies }) {
  const { told } = state;
  const isApp = message.user === told.app.user;
  const name = isApp ? told.app.name : known.people.get(message.user)?.name || "Slackbot";
  const open = () => { state.thread = message.thread_ts || message.ts; frame(); draw(); document.querySelector("#thread textarea")?.focus(); };
  const body = el(
    "div.message-body", {},
    message.is_ephemeral && el("p.only-you", {}, icon("eye", 14), "Only visible to you"),
    !follows && el("p.byline", {}, el("strong", {}, name), (isApp || message.user === told.slackbot) && el("span.app-tag", {}, "App"), el("span.stamp", {}, clock(message.ts))),
    message.blocks?.length ? blocks(message.blocks, surface({ channel: message.channel, ts: message.ts }, message.ts)) : message.text && el("div.message-text", {}, mrkdwn(message.text), message.edited && el("span.edited", {}, " (edited)")),
    message.files?.map(file),
    message.reactions?.length && el("p.reactions", {}, message.reactions.map((it) => el("span.reaction", { title: it.users.map((user) => known.people.get(user)?.name || told.app.name).join(", ") }, emoji(it.name), it.count))),
    message.is_ephemeral && el("p.dismiss", {}, el("button.link", { type: "button", onclick: () => send("dismiss", { ts: message.ts }) }, "Dismiss message")),
    !replies && message.reply_count && el("button.replies", { type: "button", onclick: open }, message.reply_users.slice(0, 3).map((user) => avatar(user, 22)), el("span.replies-count", {}, message.reply_count === 1 ? "1 reply" : `${message.reply_count} replies`), el("span.replies-when", {}, `Last reply ${ago(new Date(message.latest_reply * 1000))}`), el("span.replies-view", {}, "View thread", icon("right", 14))),
  );
  const tools = !replies && !message.is_ephemeral && el("div.tools", {}, el("button.icon-button", { type: "button", title: "Reply in thread", "aria-label": "Reply in thread", onclick: open }, icon("reply", 18)));
  const node = el(`li.message${follows ? ".follows" : ""}${message.is_ephemeral ? ".ephemeral" : ""}`, { "data-ts": message.ts }, el("div.message-side", {}, follows ? el("span.stamp", {}, clock(message.ts)) : avatar(message.user, 36)), body, tools);
  node.setAttribute("aria-label", `${name}: ${message.text || ""}`.slice(0, 200));
  return node;
}

function file(it) {
  if (it.state !== "ready") return el("p.file-wait", {}, el("span.status.status-in_progress"), `Processing ${it.name}`);
  const address = `files/${encodeURIComponent(it.id)}/${encodeURIComponent(it.name)}`;
  if (!/^image\/(png|jpeg|gif|webp)$/.test(it.mimetype)) return el("p.file", {}, el("a.link", { href: address, download: it.name }, icon("download", 16), it.title));
  const show = () => {
    const dialog = el("dialog.lightbox", { "aria-label": it.title, onclick: () => dialog.close(), onclose: () => dialog.remove() }, el("img", { src: address, alt: it.alt_txt || it.title }), el("p", {}, it.title));
    document.body.append(dialog);
    dialog.showModal();
  };
  const loaded = (event) => { const scroll = event.target.closest(".scroll"); if (scroll && scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 600) scrollDown(scroll); };
  return el("figure.file", {}, el("figcaption", {}, it.title), el("button.file-picture", { type: "button", "aria-label": `Enlarge ${it.title}`, onclick: show }, el("img", { src: address, alt: it.alt_txt || it.title, onload: loaded })));
}

// What blocks need of the message or view they are in.
function surface(place, key) {
  if (!state.values.has(key)) state.values.set(key, {});
  const values = state.values.get(key);
  const press = async (block, element, given, occurrence) => {
    if (element.confirm && !(await ask(element.confirm))) return;
    const done = await send("press", { ...place, block_id: block.block_id, action_id: element.action_id, given, values, occurrence });
    if (!done.ok && place.view) toast(done.problem);
  };
  return { press, values };
}

// Threads

function frameThread() {
  const pane = at("thread");
  const channel = shownChannel();
  pane.hidden = !state.thread || !channel || state.channel === HOME;
  at("frame").classList.toggle("with-thread", !pane.hidden);
  if (pane.hidden) return fill(pane);
  const close = () => { state.thread = null; frame(); };
  fill(
    pane,
    el("header.place", {}, el("h2", {}, "Thread"), el("p.place-about", {}, `#${state.channels.get(channel).name}`), el("button.icon-button", { type: "button", "aria-label": "Close thread", onclick: close }, icon("close", 18))),
    el("div.scroll", { id: "thread-scroll", tabindex: 0, role: "log", "aria-label": "Thread", "aria-live": "off" }, el("ol.messages", { id: "thread-messages" })),
    el("div.composer-place", {}, composer({ id: "thread-text", label: "Reply…", commands: [], send: (text) => send("type", { channel, text, thread_ts: state.thread }) })),
  );
  requestAnimationFrame(() => scrollDown(at("thread-scroll")));
  return pane;
}

function drawThread() {
  const list = at("thread-messages");
  if (!list || !state.thread) return;
  const messages = inChannel(shownChannel()).filter((it) => it.ts === state.thread || it.thread_ts === state.thread);
  drawList(list, at("thread-scroll"), messages, { replies: true, first: state.thread });
}

// App Home and modals

function drawHome() {
  const view = state.home;
  const same = JSON.stringify([view, state.me]);
  if (at("home").same === same) return;
  at("home").same = same;
  const nothing = el("div.home-empty", {}, avatar(state.told.app.user, 64), el("h3", {}, "Nothing here yet"), el("p", {}, "Callboard shows what waits for you here once it runs."));
  fill(at("home"), el("div.home-inner", {}, view ? blocks(view.blocks, surface({ view: view.id }, view.id)) : nothing));
}

function setView(view) {
  state.view = view;
  showModal(view, {
    app: state.told?.app,
    surface,
    submit: (values) => send("submit", { view: view.id, values }),
    close: (id) => send("close", { view: id }),
  });
}

function toast(words) {
  const node = el("p.toast", {}, icon("problem", 18), words);
  at("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

setInterval(schedule, 60_000);
put(at("burger"), icon("menu", 20));
at("burger").addEventListener("click", () => showSide(!at("frame").classList.contains("side-open")));
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (at("frame").classList.contains("side-open")) showSide(false);
  else if (state.thread && at("thread").contains(document.activeElement)) { state.thread = null; frame(); at("composer-text")?.focus(); }
});
const [channel, thread] = decodeURIComponent(location.hash.slice(1)).split("/");
state.channel = channel;
state.thread = thread || null;
listen();
