// Rows are lines and, between them, the heads of folds and notes. All rows are equally high.

import { duration, size } from "./time.js";

export class Rows {
  constructor() {
    this.heads = []; // in the order of their lines: {key, kind, line, end, open, text, note, code}
    this.lines = 0;
    this.runs = [];
    this.count = 0;
  }

  // A fold that a person closed stays closed while lines arrive.
  set(heads, lines) {
    const before = new Map(this.heads.map((head) => [head.key, head.open]));
    for (const head of heads) head.open = before.get(head.key) ?? true;
    this.heads = heads;
    this.lines = lines;
    this.layout();
  }

  layout() {
    this.runs = [];
    let row = 0, line = 0;
    const add = (run) => { this.runs.push({ row, ...run }); row += run.count; };
    for (const head of this.heads) {
      if (head.line > this.lines) break;
      if (head.line > line) add({ line, count: head.line - line });
      line = Math.max(line, head.line);
      add({ line: head.line, count: 1, head });
      if (!head.open) line = Math.max(line, Math.min(head.end ?? this.lines, this.lines));
    }
    if (this.lines > line) add({ line, count: this.lines - line });
    this.count = row;
  }

  // {head} or {line} at a row; null behind the end.
  at(row) {
    let low = 0, high = this.runs.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.runs[middle].row <= row) low = middle; else high = middle - 1;
    }
    const run = this.runs[low];
    if (!run || row < 0 || row >= this.count) return null;
    return run.head ? { head: run.head } : { line: run.line + row - run.row };
  }

  // The row of a line; the fold that hides it is opened.
  of(line) {
    const hiding = this.heads.filter((head) => !head.open && head.line <= line && line < (head.end ?? Infinity));
    if (hiding.length) {
      for (const head of hiding) head.open = true;
      this.layout();
    }
    const run = this.runs.find((each) => !each.head && each.line <= line && line < each.line + each.count);
    return run ? run.row + line - run.line : Math.max(0, this.count - 1);
  }
}

// Marks (each with its line "l") and the step's commands -> heads.
export function headsOf(marks, commands) {
  const heads = [], folds = new Map();
  for (const { k: kind, v: value, l: line, t: time, o: offset } of marks) {
    if (line === null || line === undefined) continue;
    if (kind === "begin") {
      const [first, ...more] = (commands[value] ?? `command ${value + 1}`).split("\n");
      const fold = { key: `c${value}-${offset}`, kind: "fold", line, end: null, text: `$ ${first}${more.length ? " …" : ""}`, note: "", code: 0, time };
      folds.set(value, fold);
      heads.push(fold);
    } else if (kind === "end") {
      const fold = folds.get(value[0]);
      if (!fold) continue;
      fold.end = line;
      fold.note = duration(time - fold.time);
      fold.code = value[1];
    } else if (kind === "elided") {
      heads.push({ key: `e${offset}`, kind: "note", line, text: `${size(value[1] - value[0])} are left out here: the step printed more than its log may hold, and went on. The end follows.`, note: "" });
    } else if (kind === "note") {
      heads.push({ key: `n${heads.length}`, kind: "note", line, text: String(value), note: "" });
    }
  }
  return heads.map((head, at) => [head, at]).sort((a, b) => a[0].line - b[0].line || a[1] - b[1]).map(([head]) => head);
}
