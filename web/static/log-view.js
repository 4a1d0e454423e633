// <log-view>: a log of any length in a few hundred nodes. Virtual from the first line; follows while the step prints.

import { nodes, pass, plain, plainStyle } from "./ansi.js";
import { Source } from "./log-source.js";
import { Rows, headsOf } from "./log-rows.js";
import { size, thousands } from "./time.js";

const ROW = 20, OVERSCAN = 12, MAX_HEIGHT = 8_000_000, MAX_HITS = 10_000, CUT = 4096, MORE = 65_536;

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

class LogView extends HTMLElement {
  connectedCallback() {
    const { base, attempt, closed, commands } = this.dataset;
    this.isLive = closed !== "yes";
    this.commands = JSON.parse(commands || "[]");
    this.source = new Source(base, attempt);
    this.rows = new Rows();
    this.shown = new Map(); // how many characters of a very long line a person wants to see
    this.drawn = new Map(); // rows in view, so that what did not change stays the same node
    this.hits = [];
    this.hit = -1;
    this.query = "";
    this.top = 0; // the first row in view, with a fraction
    this.build();
    this.selected = this.fromHash();
    this.setFollowing(this.isLive && !this.selected);
    this.listen();
    this.start();
  }

  disconnectedCallback() {
    this.source.close();
    this.abort.abort();
    this.resize.disconnect();
  }

  build() {
    this.tools = document.getElementById("log-tools") ?? element("span", "tools");
    this.tools.replaceChildren();
    this.box = element("div", "text");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "log");
    this.box.setAttribute("aria-live", "off");
    this.box.setAttribute("aria-label", "Lines of the log");
    this.space = element("div", "space");
    this.list = element("div", "rows");
    this.space.append(this.list);
    this.box.append(this.space);
    this.more = element("button", "more");
    this.more.type = "button";
    this.more.hidden = true;
    this.foot = element("footer", "tail");
    this.state = element("span");
    this.status = element("span", "num");
    this.foot.append(this.state, this.status);
    this.replaceChildren(this.box, this.more, this.foot);
    this.button("Find", "/", () => this.openFind());
    this.followButton = this.button("Follow", "f", () => this.toggleFollowing());
    this.followButton.hidden = !this.isLive;
  }

  button(text, key, action) {
    const made = element("button", "bare", `${text} `);
    made.type = "button";
    made.append(element("kbd", "", key));
    made.addEventListener("click", action);
    this.tools.append(made);
    return made;
  }

  listen() {
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.box.addEventListener("scroll", () => this.scrolled(), { passive: true, signal });
    this.box.addEventListener("wheel", (event) => this.wheeled(event), { passive: false, signal });
    this.list.addEventListener("click", (event) => this.clicked(event), { signal });
    this.more.addEventListener("click", () => this.setFollowing(true), { signal });
    document.addEventListener("keydown", (event) => this.pressed(event), { capture: true, signal });
    window.addEventListener("hashchange", () => { this.selected = this.fromHash(); this.goSelected(); }, { signal });
    this.resize = new ResizeObserver(() => this.draw());
    this.resize.observe(this.box);
    this.source.addEventListener("change", () => this.draw());
    this.source.addEventListener("lines", () => this.draw());
  }

  async start() {
    try {
      await this.source.open(this.isLive);
    } catch (error) {
      this.status.textContent = `The log cannot be read now (${error.message}). Load the page again to try again.`;
      return;
    }
    this.update();
    this.makeRoom();
    if (this.selected) this.goSelected();
    else if (this.dataset.line) this.goLine(Number(this.dataset.line) - 1);
    this.update();
    this.dataset.ready = "yes";
  }

  // On a wide screen the whole pane is in view at once where it begins high enough.
  makeRoom() {
    const room = window.innerHeight - this.box.getBoundingClientRect().top - window.scrollY - 50;
    if (window.innerWidth > 980 && room > 320) this.style.setProperty("--log-room", `${room}px`);
    if (this.selected) this.closest(".log")?.scrollIntoView({ block: "nearest" });
  }

  draw() {
    this.frame ??= requestAnimationFrame(() => { this.frame = null; this.update(); });
  }

  // --- geometry -------------------------------------------------------------------------------------------

  get fits() { return Math.max(1, Math.floor(this.box.clientHeight / ROW)); }
  get lastTop() { return Math.max(0, this.rows.count - this.box.clientHeight / ROW); }
  get height() { return Math.min(this.rows.count * ROW, MAX_HEIGHT); }
  // Browsers limit how high an element may be: above, a pixel of the scroll bar is more than a pixel of rows.
  get isScaled() { return this.rows.count * ROW > MAX_HEIGHT; }

  scrolled() {
    if (Math.abs(this.box.scrollTop - this.expected) < 1) { this.draw(); return; }
    this.expected = -1;
    const range = this.height - this.box.clientHeight;
    this.top = range <= 0 ? 0 : this.isScaled ? this.box.scrollTop / range * this.lastTop : this.box.scrollTop / ROW;
    const isAtEnd = this.top >= this.lastTop - 1;
    // Also once the log has ended: who scrolls up is never pulled back down.
    if (this.isLive && isAtEnd !== this.isFollowing) this.setFollowing(isAtEnd);
    this.draw();
  }

  wheeled(event) {
    if (!this.isScaled || event.ctrlKey) return; // the browser scrolls exactly by itself
    event.preventDefault();
    this.setFollowing(false);
    this.goRow(this.top + (event.deltaMode === 1 ? event.deltaY : event.deltaY / ROW));
  }

  goRow(row) {
    this.top = Math.max(0, Math.min(row, this.lastTop));
    const range = this.height - this.box.clientHeight;
    this.box.scrollTop = this.isScaled ? this.top / Math.max(1, this.lastTop) * range : this.top * ROW;
    this.expected = this.box.scrollTop;
    this.draw();
  }

  goLine(line) {
    this.setFollowing(false);
    this.goRow(this.rows.of(Math.min(line, this.source.count - 1)) - Math.floor(this.fits / 3));
  }

  goSelected() {
    if (this.selected) this.goLine(this.selected[0] - 1);
    this.draw();
  }

  setFollowing(value) {
    this.isFollowing = value && this.isLive && !this.source.ended;
    this.followButton.setAttribute("aria-pressed", String(this.isFollowing));
    this.seen = this.source.count;
    this.draw();
  }

  // Follow while the step prints; afterwards the key goes to the end.
  toggleFollowing() {
    if (this.isLive && !this.source.ended) this.setFollowing(!this.isFollowing);
    else this.goRow(this.rows.count);
  }

  // --- drawing --------------------------------------------------------------------------------------------

  update() {
    this.layout();
    if (this.isFollowing) this.goRow(this.lastTop);
    const first = Math.max(0, Math.floor(this.top) - OVERSCAN);
    const last = Math.min(this.rows.count, Math.ceil(this.top) + this.fits + 1 + OVERSCAN);
    const drawn = new Map();
    for (let row = first; row < last; row++) {
      const what = this.rows.at(row);
      const made = what.head ? this.head(what.head) : this.line(what.line);
      drawn.set(made.key, made);
    }
    this.show(drawn);
    const shift = this.isScaled ? this.box.scrollTop - (this.top - first) * ROW : first * ROW;
    this.list.style.transform = `translateY(${shift}px)`;
    this.drawFoot();
  }

  // Keep the nodes that stay, so that a selection and the focus stay too.
  show(drawn) {
    for (const [key, { node }] of this.drawn) if (drawn.get(key)?.node !== node) node.remove();
    let at = this.list.firstChild;
    for (const { node } of drawn.values()) {
      if (node === at) at = at.nextSibling;
      else this.list.insertBefore(node, at);
    }
    this.drawn = drawn;
  }

  layout() {
    const { source, rows } = this;
    if (this.marksSeen !== source.marks.length || this.isUnplaced) this.placeMarks();
    if (rows.lines !== source.count) {
      rows.lines = source.count;
      rows.layout();
    }
    const key = `${this.height} ${String(source.count).length}`;
    if (key === this.sizeKey) return;
    this.sizeKey = key;
    this.space.style.height = `${this.height}px`;
    // As high as its rows, with room for a scroll bar below them; CSS says how high at most.
    this.box.style.setProperty("--log-height", `${this.height + 18}px`);
    this.style.setProperty("--digits", `${Math.max(5, String(source.count).length + 1)}ch`);
  }

  async placeMarks() {
    if (this.isPlacing) return;
    this.isPlacing = true;
    const { source } = this, seen = source.marks.length;
    try {
      for (const mark of source.marks) if (mark.l === undefined || mark.l === null) mark.l = await source.lineAt(mark.o);
    } catch { /* the server is away: the next draw tries again */ }
    this.isPlacing = false;
    this.isUnplaced = source.marks.some((mark) => mark.l === undefined || mark.l === null);
    this.marksSeen = seen;
    this.rows.set(headsOf(source.marks, this.commands), source.count);
    this.draw();
  }

  head(head) {
    const key = `${head.key} ${head.open} ${head.note}`, known = this.drawn.get(key);
    if (known) return known;
    const node = element("div", head.kind === "fold" ? "fold" : "fold note");
    const text = element("span", "cut", head.text);
    text.title = head.text;
    if (head.kind === "fold") {
      const toggle = element("button", "", head.open ? "▾" : "▸");
      toggle.type = "button";
      toggle.dataset.fold = head.key;
      toggle.setAttribute("aria-expanded", String(head.open));
      toggle.setAttribute("aria-label", head.text);
      node.append(toggle, text);
    } else node.append(element("span"), text);
    const note = element("small", "", head.note);
    if (head.code) note.append(" · ", element("b", "", `exit ${head.code}`));
    node.append(note);
    return { key, node };
  }

  line(number) {
    const found = this.source.line(number);
    const limit = this.shown.get(number) ?? CUT;
    const missing = this.source.hidden.get(number) ?? 0;
    const flags = this.flags(number, found);
    const key = `${number}`, known = this.drawn.get(key);
    if (known && known.text === found?.text && known.flags === flags && known.limit === limit && known.missing === missing) return known;
    const node = element("div", `line ${flags}`.trim());
    node.id = `L${number + 1}`;
    const anchor = element("a", "", String(number + 1));
    anchor.href = `#L${number + 1}`;
    anchor.dataset.number = number + 1;
    const text = element("span", "t");
    if (found) {
      text.append(...nodes(found.text.slice(0, limit), this.styleAt(found)));
      const rest = Math.max(0, found.text.length - limit) + missing;
      if (rest) text.append(this.moreOf(number, rest, found.text.length > limit));
    } else text.textContent = "…";
    node.append(anchor, text);
    return { key, node, text: found?.text, flags, limit, missing };
  }

  flags(number, found) {
    const names = [];
    if (this.selected && number + 1 >= this.selected[0] && number + 1 <= this.selected[1]) names.push("hit");
    else if (number + 1 === Number(this.dataset.line)) names.push("wrong");
    if (this.query && found && plain(found.text).toLowerCase().includes(this.query)) names.push("found");
    if (this.hits[this.hit] === number) names.push("here");
    return names.join(" ");
  }

  // The colours with which a line begins: they hold over line ends.
  styleAt({ segment, at, before }) {
    const styles = segment.styles ??= [before?.end ?? plainStyle()];
    while (styles.length <= at) {
      const last = styles.at(-1), text = segment.lines[styles.length - 1];
      if (text.includes("\x1b")) {
        const next = { ...last, flags: new Set(last.flags) };
        pass(text, next);
        styles.push(next);
      } else styles.push(last);
      segment.end = styles.at(-1);
    }
    const style = styles[at];
    return { ...style, flags: new Set(style.flags) };
  }

  moreOf(number, rest, isHere) {
    if (!isHere) {
      const link = element("a", "link quiet", ` … ${size(rest)} more in the raw log`);
      link.href = this.source.url("raw");
      return link;
    }
    const made = element("button", "", `show more of ${size(rest)}`);
    made.type = "button";
    made.dataset.more = number;
    return made;
  }

  drawFoot() {
    const { source } = this, count = source.count, unseen = count - this.seen;
    this.more.hidden = this.isFollowing || !this.isLive || unseen <= 0;
    if (!this.more.hidden) this.more.textContent = `↓ ${thousands(unseen)} new line${unseen === 1 ? "" : "s"}`;
    this.box.hidden = !this.rows.count;
    const word = !this.isLive || source.ended || !count ? "" : this.isFollowing ? "following" : "paused";
    if (this.state.textContent !== word) this.state.textContent = word;
    const text = count ? `${thousands(count)} line${count === 1 ? "" : "s"} · ${size(source.have)}`
      : source.ended ? "It has printed nothing." : "It has printed nothing yet.";
    if (this.status.textContent !== text) this.status.textContent = text;
    if (this.isLive && source.ended && !this.followButton.hidden) {
      this.setFollowing(false);
      this.followButton.hidden = true;
    }
  }

  // --- lines by their address -------------------------------------------------------------------------------

  fromHash() {
    const match = /^#L(\d{1,15})(?:-L?(\d{1,15}))?$/.exec(location.hash);
    if (!match) return null;
    const first = Number(match[1]), last = Number(match[2] ?? match[1]);
    return [Math.max(1, Math.min(first, last)), Math.max(first, last)];
  }

  clicked(event) {
    const { fold, more, number } = event.target.closest("[data-fold],[data-more],[data-number]")?.dataset ?? {};
    if (fold) {
      const head = this.rows.heads.find((each) => each.key === fold);
      head.open = !head.open;
      this.rows.layout();
      this.setFollowing(false);
      this.update();
      [...this.list.querySelectorAll("[data-fold]")].find((each) => each.dataset.fold === fold)?.focus();
    } else if (more) {
      this.shown.set(Number(more), (this.shown.get(Number(more)) ?? 0) + MORE);
      this.draw();
    } else if (number && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      const line = Number(number), from = event.shiftKey && this.selected ? this.selected[0] : line;
      const [first, last] = this.selected = [Math.min(from, line), Math.max(from, line)];
      this.setFollowing(false);
      history.replaceState(null, "", this.address(first, last));
      this.draw();
    }
  }

  // With the attempt in it, so that the link shows the same for ever.
  address(first, last) {
    const hash = first === last ? `#L${first}` : `#L${first}-L${last}`;
    return `${this.dataset.base}?attempt=${this.dataset.attempt}${hash}`;
  }

  // --- keys and find ----------------------------------------------------------------------------------------

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select, dialog")) return;
    const action = {
      "/": () => this.openFind(),
      f: () => this.toggleFollowing(),
      n: () => this.nextHit(1),
      N: () => this.nextHit(-1),
      g: () => { this.setFollowing(false); this.goRow(0); },
      G: () => { if (this.isLive && !this.source.ended) this.setFollowing(true); else this.goRow(this.rows.count); },
      z: () => this.foldAll(),
    }[event.key];
    if (!action) return;
    if (event.key !== "g") event.preventDefault(); // which may begin `g h`, to be heard by the page as well
    action();
  }

  foldAll() {
    const folds = this.rows.heads.filter((head) => head.kind === "fold"), open = !folds.some((head) => head.open);
    for (const head of folds) head.open = open;
    this.rows.layout();
    this.setFollowing(false);
    this.goRow(Math.min(this.top, this.lastTop));
  }

  openFind() {
    if (!this.finder) {
      this.finder = element("span", "find");
      const input = element("input");
      input.type = "search";
      input.placeholder = "Find in this log";
      input.setAttribute("aria-label", "Find in this log");
      input.addEventListener("keydown", (event) => {
        if (event.key === "Enter") {
          event.preventDefault();
          this.find(input.value, event.shiftKey ? -1 : 1);
        } else if (event.key === "Escape") {
          this.finder.remove();
          this.find("");
          this.box.focus();
        }
      });
      this.found = element("output");
      this.found.setAttribute("aria-live", "polite");
      this.finder.append(input, this.found);
    }
    this.tools.prepend(this.finder);
    this.finder.firstChild.focus();
    this.finder.firstChild.select();
  }

  // Looks through the whole log, a megabyte at a time; goes to the first hit as soon as there is one.
  async find(text, direction = 1) {
    const query = text.toLowerCase();
    if (query && query === this.query && this.hits.length) return this.nextHit(direction);
    this.query = query;
    this.hits = [];
    this.hit = -1;
    this.found.textContent = query ? "looking …" : "";
    this.draw();
    if (!query) return;
    for await (const { line, lines } of this.source.all()) {
      if (this.query !== query) return;
      for (let at = 0; at < lines.length && this.hits.length < MAX_HITS; at++) if (plain(lines[at]).toLowerCase().includes(query)) this.hits.push(line + at);
      if (this.hit < 0 && this.hits.length) this.nextHit(1);
      this.tellHits();
      if (this.hits.length >= MAX_HITS) break;
    }
    if (!this.hits.length) this.found.textContent = "nothing found";
  }

  nextHit(direction) {
    if (!this.hits.length) return;
    this.hit = (this.hit + direction + this.hits.length) % this.hits.length;
    this.goLine(this.hits[this.hit]);
    this.tellHits();
  }

  tellHits() {
    if (this.hits.length) this.found.textContent = `${thousands(this.hit + 1)} of ${thousands(this.hits.length)}${this.hits.length >= MAX_HITS ? "+" : ""}`;
  }
}

customElements.define("log-view", LogView);
