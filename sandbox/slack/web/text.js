// Slack's texts as nodes: mrkdwn, plain text with emoji, links that stay in the sandbox, dates in the reader's time.

import { el, put } from "./dom.js";
import { SIGNS, emoji, signName } from "./icons.js";

// What texts refer to; the page fills it in.
export const known = { people: new Map(), groups: {}, channels: new Map(), hosts: [], domain: "", app: {}, jump: () => {} };

const decode = (text) => text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");

// A link to anywhere safe; addresses of the sandbox's hosts open its own pages, permalinks jump.
export function link(address, ...children) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return el("span", {}, ...children);
  }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return el("span", {}, ...children);
  const archived = /^\/archives\/([A-Z0-9]+)\/p(\d+)(\d{6})$/.exec(url.pathname);
  if (url.hostname === `${known.domain}.slack.com` && archived) {
    const [, channel, seconds, rest] = archived;
    const jump = (event) => { event.preventDefault(); known.jump(channel, `${seconds}.${rest}`, url.searchParams.get("thread_ts")); };
    return el("a.link", { href: `#${channel}`, onclick: jump }, ...children);
  }
  const local = known.hosts.includes(url.hostname);
  const href = local ? `/${url.hostname}${url.pathname}${url.search}${url.hash}` : url.href;
  return el("a.link", { href, target: "_blank", rel: "noopener noreferrer", title: url.href }, ...children);
}

export function mention(user) {
  if (user === known.app.user) return el("span.mention", {}, `@${known.app.name}`);
  const person = known.people.get(user);
  return el(user === known.me ? "span.mention.mention-me" : "span.mention", {}, `@${person ? person.name : user}`);
}

export function date(seconds, format, fallback) {
  const when = new Date(seconds * 1000);
  if (Number.isNaN(when.getTime())) return fallback || "";
  const show = (options) => new Intl.DateTimeFormat(undefined, options).format(when);
  const pretty = (text) => {
    const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(when).setHours(0, 0, 0, 0)) / 86_400_000);
    return { "-1": "tomorrow", 0: "today", 1: "yesterday" }[days] || text;
  };
  const forms = {
    date_num: () => when.toISOString().slice(0, 10),
    date: () => show({ month: "long", day: "numeric", year: "numeric" }),
    date_short: () => show({ month: "short", day: "numeric", year: "numeric" }),
    date_long: () => show({ weekday: "long", month: "long", day: "numeric", year: "numeric" }),
    date_pretty: () => pretty(forms.date()),
    date_short_pretty: () => pretty(forms.date_short()),
    date_long_pretty: () => pretty(forms.date_long()),
    time: () => show({ hour: "numeric", minute: "2-digit" }),
    time_secs: () => show({ hour: "numeric", minute: "2-digit", second: "2-digit" }),
    ago: () => ago(when),
  };
  const text = format.replace(/\{(\w+)\}/g, (whole, name) => (forms[name] ? forms[name]() : whole));
  return el("time", { datetime: when.toISOString(), title: when.toLocaleString() }, text);
}

export function ago(when) {
  const seconds = Math.max(0, (Date.now() - when) / 1000);
  if (seconds < 60) return "just now";
  const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"]].find(([size]) => seconds >= size);
  return new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }).format(-Math.floor(seconds / size), unit);
}

// Text as it is, with emoji by sign and by :name:.
export function plain(text) {
  const nodes = [];
  let rest = text;
  const find = new RegExp(`:([a-z0-9_+'-]+):|${SIGNS.source}`, "u");
  for (let found = find.exec(rest); found; found = find.exec(rest)) {
    if (found.index) nodes.push(document.createTextNode(rest.slice(0, found.index)));
    nodes.push(emoji(found[1] || signName(found[2])));
    rest = rest.slice(found.index + found[0].length);
  }
  if (rest) nodes.push(document.createTextNode(rest));
  return nodes;
}

const PARTS = [
  [/```\n?([\s\S]+?)\n?```/, (found) => el("pre", {}, el("code", {}, decode(stripped(found[1]))))],
  [/`([^`\n]+)`/, (found) => el("code", {}, decode(stripped(found[1])))],
  [/<([^<>\n]+)>/, (found) => angle(found[1])],
  [/(?<![\p{L}\p{N}*])\*(?!\s)([^*\n]+?)(?<!\s)\*(?![\p{L}\p{N}*])/u, (found) => el("strong", {}, inline(found[1]))],
  [/(?<![\p{L}\p{N}_])_(?!\s)([^_\n]+?)(?<!\s)_(?![\p{L}\p{N}_])/u, (found) => el("em", {}, inline(found[1]))],
  [/(?<![\p{L}\p{N}~])~(?!\s)([^~\n]+?)(?<!\s)~(?![\p{L}\p{N}~])/u, (found) => el("s", {}, inline(found[1]))],
];

// In code, links show their words only.
const stripped = (text) => text.replace(/<([^<>|\n]+)(?:\|([^<>\n]+))?>/g, (_, address, words) => words || address);

function angle(inner) {
  const [target, words] = inner.includes("|") ? [inner.slice(0, inner.indexOf("|")), inner.slice(inner.indexOf("|") + 1)] : [inner, ""];
  if (target.startsWith("@")) return mention(target.slice(1));
  if (target.startsWith("#")) return el("span.mention", {}, `#${known.channels.get(target.slice(1))?.name || words || target.slice(1)}`);
  const group = /^!subteam\^(\w+)$/.exec(target);
  if (group) return el("span.mention", {}, `@${known.groups[group[1]] || group[1]}`);
  const moment = /^!date\^(\d+)\^([^^]+)(?:\^(.+))?$/.exec(target);
  if (moment) {
    const shown = date(Number(moment[1]), decode(moment[2]), decode(words));
    return moment[3] ? link(decode(moment[3]), shown) : shown;
  }
  if (target.startsWith("!")) return el("span.mention.mention-me", {}, `@${target.slice(1).split("^")[0]}`);
  return link(decode(target), words ? inline(words) : decode(target));
}

// One stretch of mrkdwn: the earliest part wins, what is left over is text.
export function inline(text) {
  const nodes = [];
  let rest = text;
  while (rest) {
    let first = null;
    for (const [pattern, make] of PARTS) {
      const found = pattern.exec(rest);
      if (found && (!first || found.index < first.found.index)) first = { found, make };
    }
    if (!first) break;
    nodes.push(...plain(decode(rest.slice(0, first.found.index))), first.make(first.found));
    rest = rest.slice(first.found.index + first.found[0].length);
  }
  return [...nodes, ...plain(decode(rest))];
}

// A whole mrkdwn text: quotes are blocks, lines break.
export function mrkdwn(text) {
  const box = el("div.mrkdwn");
  for (const part of text.split(/(```[\s\S]+?```)/)) {
    if (part.startsWith("```") && part.length > 6) {
      put(box, inline(part));
      continue;
    }
    const lines = part.split("\n");
    for (let at = 0; at < lines.length; at += 1) {
      if (/^(&gt;|>)/.test(lines[at])) {
        const quote = [];
        for (; at < lines.length && /^(&gt;|>)/.test(lines[at]); at += 1) quote.push(lines[at].replace(/^(&gt;|>)\s?/, ""));
        at -= 1;
        box.append(el("blockquote", {}, quote.map((line, index) => [index ? el("br") : null, inline(line)])));
      } else {
        if (at && !/^(&gt;|>)/.test(lines[at - 1])) box.append(el("br"));
        put(box, inline(lines[at]));
      }
    }
  }
  return box;
}

// A text object in any place.
export function text(object) {
  if (!object) return [];
  return object.type === "mrkdwn" ? mrkdwn(object.text) : el("div.plain", {}, plain(object.text));
}

export const words = (object) => (object ? plain(object.text) : []);
