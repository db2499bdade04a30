// Line icons of the page, and the emoji our messages use, drawn so that they look the same on every machine.

import { drawing, el } from "./dom.js";

const line = (d, more = {}) => ["path", { d, fill: "none", stroke: "currentColor", "stroke-width": 1.7, "stroke-linecap": "round", "stroke-linejoin": "round", ...more }];
const dot = (cx, cy, r) => ["circle", { cx, cy, r, fill: "currentColor" }];

const ICONS = {
  hash: [line("M7.5 3.5 6 16.5M14 3.5l-1.5 13M3.5 7.5h13M3 12.5h13")],
  close: [line("m5 5 10 10M15 5 5 15")],
  down: [line("m5.5 8 4.5 4.5L14.5 8")],
  right: [line("m8 5.5 4.5 4.5L8 14.5")],
  menu: [line("M3.5 5.5h13M3.5 10h13M3.5 14.5h13")],
  send: [["path", { d: "M3 3.2 17.5 10 3 16.8l1.7-5.6L12 10 4.7 8.8z", fill: "currentColor" }]],
  reply: [line("M17 9.5c0 3.3-3.1 6-7 6-.9 0-1.8-.1-2.6-.4L3.5 16.5l1-3.1A5.6 5.6 0 0 1 3 9.5c0-3.3 3.1-6 7-6s7 2.7 7 6Z")],
  eye: [line("M2.5 10S5.2 5 10 5s7.5 5 7.5 5-2.7 5-7.5 5-7.5-5-7.5-5Z"), dot(10, 10, 2)],
  check: [line("m5 10.5 3.3 3.3L15 6.5", { "stroke-width": 2.2 })],
  cross: [line("m6 6 8 8M14 6l-8 8", { "stroke-width": 2.2 })],
  info: [line("M10 9.5v4"), dot(10, 6.6, 1.1)],
  alert: [line("M10 6v5"), dot(10, 13.8, 1.1)],
  problem: [["circle", { cx: 10, cy: 10, r: 7.5, fill: "none", stroke: "currentColor", "stroke-width": 1.7 }], line("M10 6.3v4.4"), dot(10, 13.6, 1.1)],
  home: [line("M3.5 9.5 10 4l6.5 5.5M5.5 8v8h9V8")],
  link: [line("M8 12.5a3 3 0 0 0 4.3 0l2.8-2.8a3 3 0 0 0-4.3-4.3L10 6.2M12 7.5a3 3 0 0 0-4.3 0l-2.8 2.8a3 3 0 0 0 4.3 4.3l.8-.8")],
  people: [line("M7.5 9.5a2.7 2.7 0 1 0 0-5.4 2.7 2.7 0 0 0 0 5.4ZM2.5 16c.3-2.8 2.3-4.3 5-4.3s4.7 1.5 5 4.3M13 4.5a2.6 2.6 0 0 1 0 5M14.5 12c1.700.5 2.8 1.9 3 4")],
  dots: [dot(4.5, 10, 1.5), dot(10, 10, 1.5), dot(15.5, 10, 1.5)],
  download: [line("M10 3.5v8.5m-3.5-3 3.5 3.5 3.5-3.5M4 16h12")],
};

export function icon(name, size = 18, label = "") {
  return drawing(ICONS[name], { size, label, className: "icon" });
}

// A task's state: the spinner turns, the others stand.
export function status(name, label) {
  const words = { pending: "To do", in_progress: "In progress", complete: "Done", error: "Failed" };
  const box = el(`span.status.status-${name}`, { role: "img", "aria-label": label || words[name] || name, title: words[name] || name });
  if (name === "complete") box.append(icon("check", 14));
  if (name === "error") box.append(icon("cross", 14));
  return box;
}

const disc = (fill) => ["circle", { cx: 10, cy: 10, r: 8.5, fill }];
const tile = (fill) => ["rect", { x: 1.5, y: 1.5, width: 17, height: 17, rx: 4, fill }];
const white = (d, width = 2.2) => ["path", { d, fill: "none", stroke: "#fff", "stroke-width": width, "stroke-linecap": "round", "stroke-linejoin": "round" }];
const ink = (d, stroke, width = 2.6) => ["path", { d, fill: "none", stroke, "stroke-width": width, "stroke-linecap": "round", "stroke-linejoin": "round" }];
const shape = (d, fill) => ["path", { d, fill }];

const DRAWN = {
  white_check_mark: ["✅", [tile("#2eb67d"), white("m5.5 10.3 3.1 3.1 6-6.8", 2.4)]],
  heavy_check_mark: ["✔️", [ink("m4 10.5 4 4L16 5.5", "#2eb67d", 3)]],
  x: ["❌", [ink("m4.5 4.5 11 11M15.5 4.5l-11 11", "#e01e5a", 3.2)]],
  warning: ["⚠️", [shape("M10 1.8 19 17.5H1z", "#ecb22e"), ink("M10 7.5v4.5", "#5b3b00", 2), ["circle", { cx: 10, cy: 14.8, r: 1.2, fill: "#5b3b00" }]]],
  hourglass_flowing_sand: ["⏳", [shape("M5 1.5h10v2H5zM5 16.5h10v2H5z", "#9a6b3f"), shape("M6 3.5h8c0 3-2.7 4.7-2.7 6.5S14 13.5 14 16.5H6c0-3 2.7-4.7 2.7-6.5S6 6.5 6 3.5Z", "#cfe6f5"), shape("M7.2 6h5.6L10 9.2zM6.5 16.3 10 12.8l3.5 3.5z", "#ecb22e")]],
  hourglass: ["⌛", [shape("M5 1.5h10v2H5zM5 16.5h10v2H5z", "#9a6b3f"), shape("M6 3.5h8c0 3-2.7 4.7-2.7 6.5S14 13.5 14 16.5H6c0-3 2.7-4.7 2.7-6.5S6 6.5 6 3.5Z", "#cfe6f5"), shape("M6.5 16.3 10 12.5l3.5 3.8z", "#ecb22e")]],
  clock4: ["🕓", [disc("#8d99a8"), ["circle", { cx: 10, cy: 10, r: 6.6, fill: "#fff" }], ink("M10 6v4l2.6 2", "#3b4652", 1.6)]],
  vertical_traffic_light: ["🚦", [["rect", { x: 6, y: 1, width: 8, height: 18, rx: 3, fill: "#3b4652" }], ["circle", { cx: 10, cy: 4.8, r: 2, fill: "#e01e5a" }], ["circle", { cx: 10, cy: 10, r: 2, fill: "#ecb22e" }], ["circle", { cx: 10, cy: 15.2, r: 2, fill: "#2eb67d" }]]],
  no_entry_sign: ["🚫", [["circle", { cx: 10, cy: 10, r: 7.3, fill: "none", stroke: "#e01e5a", "stroke-width": 2.4 }], ink("m5 5 10 10", "#e01e5a", 2.4)]],
  no_entry: ["⛔", [disc("#e01e5a"), ["rect", { x: 4.5, y: 8.4, width: 11, height: 3.2, rx: 0.8, fill: "#fff" }]]],
  trophy: ["🏆", [shape("M5.5 2h9v5.5a4.5 4.5 0 0 1-9 0z", "#ecb22e"), ink("M5.5 3.8H2.8c0 3 1 4.7 3.4 5.2M14.5 3.8h2.7c0 3-1 4.7-3.4 5.2", "#d49a1a", 1.5), shape("M9 11.5h2V15H9zM6.5 15h7v2.5h-7z", "#b57f12")]],
  small_red_triangle_down: ["🔻", [shape("M2.5 5.5h15L10 16.5z", "#e01e5a")]],
  small_red_triangle: ["🔺", [shape("M2.5 15.5h15L10 4.5z", "#e01e5a")]],
  heavy_minus_sign: ["➖", [["rect", { x: 3, y: 8.6, width: 14, height: 2.8, rx: 0.8, fill: "#8d99a8" }]]],
  black_right_pointing_double_triangle_with_vertical_bar: ["⏭️", [tile("#4a90d9"), shape("M4.5 5.8 9 10l-4.5 4.2zM9.2 5.8 13.7 10l-4.5 4.2zM14 5.8h1.7v8.4H14z", "#fff")]],
  lock: ["🔒", [ink("M6.5 9V6.2a3.5 3.5 0 0 1 7 0V9", "#8d99a8", 2), ["rect", { x: 3.5, y: 8.5, width: 13, height: 9.5, rx: 2, fill: "#ecb22e" }], ["circle", { cx: 10, cy: 12.4, r: 1.5, fill: "#5b3b00" }], ink("M10 12.8v2.2", "#5b3b00", 1.6)]],
  repeat: ["🔁", [tile("#4a90d9"), white("M5 9V8a2 2 0 0 1 2-2h7M12 4l2.2 2L12 8M15 11v1a2 2 0 0 1-2 2H6M8 12l-2.2 2L8 16", 1.6)]],
  black_square_for_stop: ["⏹️", [tile("#4a90d9"), ["rect", { x: 6, y: 6, width: 8, height: 8, rx: 1, fill: "#fff" }]]],
  rocket: ["🚀", [shape("M17.8 2.2c-4.8-.6-8.4 1.2-10.6 5.3L4.3 8l-1.8 2.3 3.300.8 3.1 3.100.8 3.3L12 15.7l.5-2.9c4.1-2.2 5.9-5.8 5.3-10.6Z", "#7c8ea3"), ["circle", { cx: 12.6, cy: 7.4, r: 1.8, fill: "#cfe6f5" }], shape("M5 13.2c-1.700.4-2.4 2-2.4 4.2 2.2 0 3.8-.7 4.2-2.4z", "#e8703a")]],
  large_green_circle: ["🟢", [disc("#2eb67d")]],
  red_circle: ["🔴", [disc("#e01e5a")]],
  large_yellow_circle: ["🟡", [disc("#ecb22e")]],
  large_blue_circle: ["🔵", [disc("#4a90d9")]],
  white_circle: ["⚪", [["circle", { cx: 10, cy: 10, r: 7.8, fill: "#eef1f4", stroke: "#b4bec9", "stroke-width": 1.4 }]]],
  information_source: ["ℹ️", [tile("#4a90d9"), white("M10 9.2v5"), ["circle", { cx: 10, cy: 6, r: 1.3, fill: "#fff" }]]],
};
const PLAIN = {
  tada: "🎉", eyes: "👀", "+1": "👍", thumbsup: "👍", "-1": "👎", thumbsdown: "👎", wave: "👋", key: "🔑", bell: "🔔", fire: "🔥",
  robot_face: "🤖", mag: "🔍", memo: "📝", package: "📦", chart_with_upwards_trend: "📈", chart_with_downwards_trend: "📉", bar_chart: "📊",
  gear: "⚙️", wrench: "🔧", bulb: "💡", link: "🔗", calendar: "📅", star: "⭐", sparkles: "✨", crown: "👑", question: "❓", exclamation: "❗",
  arrow_up: "⬆️", arrow_down: "⬇️", arrow_right: "➡️", arrows_counterclockwise: "🔄", heart: "❤️", smile: "😄", zzz: "💤",
};
const NAMES = new Map();
for (const [name, [sign]] of Object.entries(DRAWN)) NAMES.set(sign.replace("\uFE0F", ""), name);

export const SIGNS = new RegExp(`(${[...NAMES.keys()].join("|")})\\uFE0F?`, "u");

// The emoji of that name, or its name between colons where we have none.
export function emoji(name) {
  const drawn = DRAWN[name];
  if (drawn) return drawing(drawn[1], { size: 18, label: name.replaceAll("_", " "), className: "emoji" });
  const plain = PLAIN[name];
  return plain ? el("span.emoji", { role: "img", "aria-label": name.replaceAll("_", " ") }, plain) : document.createTextNode(`:${name}:`);
}

export function signName(sign) {
  return NAMES.get(sign.replace("\uFE0F", ""));
}
