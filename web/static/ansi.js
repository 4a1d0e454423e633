// One line of a log, as a terminal would show it: text nodes and spans with classes, never HTML.
// The same as web/ansi.py; a test holds the two together.

const ESCAPE = /\x1b\[([0-9;:]*)m|\x1b\]8;[^;\x07\x1b]*;([^\x07\x1b]*)(?:\x07|\x1b\\|$)|\x1b[\]P_^X][^]*?(?:\x07|\x1b\\|$)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]?/g;
const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f-\x9f]/g;
const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };
const CUBE = [0, 95, 135, 175, 215, 255];

export const plainStyle = () => ({ fg: null, bg: null, flags: new Set(), link: "" });

function classesOf(style) {
  let { fg, bg } = style;
  const inverse = style.flags.has("inverse");
  if (inverse) [fg, bg] = [bg, fg];
  const names = Object.values(FLAGS).filter((flag) => flag !== "inverse" && style.flags.has(flag)).map((flag) => "a-" + flag);
  if (fg !== null) names.push("fg" + fg);
  if (bg !== null) names.push("bg" + bg);
  if (inverse && fg === null && bg === null) names.push("a-inverse");
  return names.join(" ");
}

function nearest(red, green, blue) {
  [red, green, blue] = [red, green, blue].map((value) => Math.min(value, 255));
  if (Math.max(red, green, blue) - Math.min(red, green, blue) < 10) {
    const grey = Math.floor((red + green + blue) / 3);
    if (grey < 4) return 16;
    return grey > 246 ? 231 : 232 + Math.min(23, Math.max(0, Math.floor((grey - 3) / 10)));
  }
  const place = (value) => CUBE.reduce((best, each, at) => Math.abs(each - value) < Math.abs(CUBE[best] - value) ? at : best, 0);
  return 16 + 36 * place(red) + 6 * place(green) + place(blue);
}

function extended(codes) {
  if (codes.length >= 2 && codes[0] === 5) return [codes[1] < 256 ? codes[1] : null, 2];
  if (codes.length >= 4 && codes[0] === 2) return [nearest(codes[1], codes[2], codes[3]), 4];
  return [null, codes.length];
}

function sgr(text, style) {
  const codes = text.replaceAll(":", ";").split(";").map((part) => part.length < 9 ? Number(part) : 0);
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(at + 1));
      at += used;
      if (colour !== null) style[code === 38 ? "fg" : "bg"] = colour;
    } else if (code === 0) { style.fg = style.bg = null; style.flags.clear(); }
    else if (FLAGS[code]) style.flags.add(FLAGS[code]);
    else if (OFF[code]) for (const flag of OFF[code]) style.flags.delete(flag);
    else if (code === 39) style.fg = null;
    else if (code === 49) style.bg = null;
    else if (code >= 30 && code < 38) style.fg = code - 30;
    else if (code >= 90 && code < 98) style.fg = code - 82;
    else if (code >= 40 && code < 48) style.bg = code - 40;
    else if (code >= 100 && code < 108) style.bg = code - 92;
  }
}

function after(match, style) {
  if (match[1] !== undefined) sgr(match[1], style);
  else if (match[2] !== undefined) style.link = /^https?:\/\//.test(match[2]) ? match[2] : "";
}

// [[text, classes, link], ...] of one line without its LF. `style` is changed to what the next line begins with.
export function runs(line, style = plainStyle()) {
  const found = [];
  const add = (text) => {
    text = text.replace(CONTROLS, "");
    if (!text) return;
    const classes = classesOf(style), last = found.at(-1);
    if (last && last[1] === classes && last[2] === style.link) last[0] += text;
    else found.push([text, classes, style.link]);
  };
  const parts = line.replace(/\r+$/, "").split("\r"), shown = parts.pop();
  for (const part of parts) for (const match of part.matchAll(ESCAPE)) after(match, style);
  let at = 0;
  for (const match of shown.matchAll(ESCAPE)) {
    add(shown.slice(at, match.index));
    after(match, style);
    at = match.index + match[0].length;
  }
  add(shown.slice(at));
  return found;
}

// The style behind a line, for lines that are not shown.
export function pass(line, style) {
  if (line.includes("\x1b")) for (const match of line.matchAll(ESCAPE)) after(match, style);
}

export const plain = (line) => /[\x1b\r\x00-\x08]/.test(line) ? runs(line).map((run) => run[0]).join("") : line;

export function nodes(line, style) {
  return runs(line, style).map(([text, classes, link]) => {
    if (!classes && !link) return document.createTextNode(text);
    const made = document.createElement(link ? "a" : "span");
    made.className = link ? `${classes} link`.trim() : classes;
    made.textContent = text;
    if (link) { made.href = link; made.rel = "noopener noreferrer nofollow"; }
    return made;
  });
}
