// Where lines come from: byte ranges by the sparse index, and the socket while the step prints.
// A position is a byte offset. Segments begin where a line begins, so no character is ever cut in two.

const SEGMENT_LINES = 1000, SEGMENT_BYTES = 64 * 1024, KEPT = 48, MAX_PENDING = 4;
// A segment longer than this holds one very long line: only its beginning, and what follows it, are fetched.
const LONG_BYTES = 512 * 1024, HEAD_BYTES = 256 * 1024, TAIL_BYTES = 48 * 1024;
const LF = 10;
const decoder = new TextDecoder();

export class Source extends EventTarget {
  constructor(base, attempt) {
    super();
    this.url = (name, extra = "") => `${base}/${name}?attempt=${attempt}${extra}`;
    this.segments = [{ line: 0, offset: 0 }];
    this.have = 0; // bytes below which everything is known
    this.lines = 0; // lines below `have` that have their LF
    this.ended = false;
    this.marks = []; // with "l", the line from 0 before which each stands, once it is known
    this.marksNext = 0;
    this.hidden = new Map(); // very long lines: how many of their bytes are not here
    this.cache = new Map(); // number of a segment -> {lines}, least recently used first
    this.pending = new Map();
    this.tail = { lines: [], offsets: [] }; // of the last segment, which grows
    this.partial = []; // bytes behind the last LF
    this.partialSize = 0;
    this.retry = 0;
  }

  async open(isLive) {
    const [index, marks] = await Promise.all([this.fetch("index"), this.fetch("marks")]);
    const rows = new DataView(await index.arrayBuffer());
    for (let at = 0; at + 24 <= rows.byteLength; at += 24) {
      const line = Number(rows.getBigUint64(at)), offset = Number(rows.getBigUint64(at + 8));
      if (line > this.segments.at(-1).line) this.segments.push({ line, offset });
    }
    this.lines = this.segments.at(-1).line;
    this.have = this.segments.at(-1).offset;
    const told = await marks.json();
    this.marks = told.marks.map((mark) => ({ ...mark, l: mark.l - 1 }));
    this.marksNext = told.next;
    if (isLive) return this.connect();
    // Nothing can grow: what follows the last row is a segment like any other.
    this.have = Number(index.headers.get("x-log-size"));
    this.lines = Number(index.headers.get("x-log-lines"));
    if (this.lines > this.segments.at(-1).line) this.segments.push({ line: this.lines, offset: this.have });
    this.ended = true;
    this.dispatchEvent(new Event("change"));
  }

  close() {
    this.stopped = true;
    this.socket?.close();
  }

  // A network that changes under the page ends requests: asked again, a few times.
  async fetch(name, headers = {}) {
    for (let wait = 100; ; wait *= 3) {
      const answer = await fetch(this.url(name), { headers }).catch((error) => {
        if (wait > 3000) throw error;
      });
      if (answer && !answer.ok) throw new Error(`${name}: ${answer.status}`);
      if (answer) return answer;
      await new Promise((later) => setTimeout(later, wait));
    }
  }

  async range(begin, end) {
    if (begin >= end) return new Uint8Array(0);
    const answer = await this.fetch("raw", { Range: `bytes=${begin}-${end - 1}` });
    const data = new Uint8Array(await answer.arrayBuffer());
    return answer.status === 206 ? data : data.subarray(begin, end);
  }

  // --- the socket -----------------------------------------------------------------------------------

  connect() {
    const url = new URL(this.url("live", `&offset=${this.have}&marks=${this.marksNext}`), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = this.socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (this.socket !== socket) return;
      this.retry = 0;
      if (typeof data === "string") this.told(JSON.parse(data));
      else this.chunk(data);
      this.dispatchEvent(new Event("change"));
    };
    socket.onclose = ({ code }) => {
      if (this.ended || this.stopped || this.socket !== socket || code === 1008) return;
      this.retry = Math.min(Math.max(150, this.retry * 1.8), 5000);
      setTimeout(() => this.connect(), this.retry * (0.7 + Math.random() * 0.6));
    };
  }

  told(message) {
    if (message.marks) {
      this.marks.push(...message.marks);
      this.marksNext = message.next;
    }
    if (message.end !== undefined && this.have >= message.end) this.ended = true;
  }

  chunk(data) {
    const offset = Number(new DataView(data).getBigUint64(0)), end = offset + data.byteLength - 8;
    if (offset > this.have) { this.socket.close(); return; } // a gap: it asks again from what it has
    if (end > this.have) this.take(new Uint8Array(data, 8 + this.have - offset));
  }

  // --- what arrives -----------------------------------------------------------------------------------

  // Append the bytes that follow `have`.
  take(bytes) {
    const end = bytes.lastIndexOf(LF) + 1;
    if (end) this.whole(bytes.subarray(0, end));
    const rest = bytes.subarray(end), room = HEAD_BYTES - this.partialSize;
    if (room > 0 && rest.length) this.partial.push(rest.slice(0, room));
    this.partialSize += rest.length;
    this.have += bytes.length;
  }

  whole(bytes) {
    const tail = this.tail, begin = this.have - this.partialSize;
    const head = this.partial.length ? join([...this.partial, bytes]) : bytes;
    const missing = this.partialSize - (head.length - bytes.length);
    if (missing > 0) this.hidden.set(this.lines, missing);
    tail.offsets.push(begin);
    for (let at = bytes.indexOf(LF); at >= 0 && at + 1 < bytes.length; at = bytes.indexOf(LF, at + 1)) tail.offsets.push(this.have + at + 1);
    const lines = split(head);
    for (const line of lines) tail.lines.push(line);
    this.lines += lines.length;
    this.partial = [];
    this.partialSize = 0;
    const offset = this.have + bytes.length, last = this.segments.at(-1);
    if (tail.lines.length >= SEGMENT_LINES || offset - last.offset >= SEGMENT_BYTES) {
      this.keep(this.segments.length - 1, tail);
      this.segments.push({ line: this.lines, offset });
      this.tail = { lines: [], offsets: [] };
    }
  }

  get count() { return this.lines + (this.partialSize ? 1 : 0); }

  // --- what is asked for ------------------------------------------------------------------------------

  place(value, key) {
    let low = 0, high = this.segments.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.segments[middle][key] <= value) low = middle; else high = middle - 1;
    }
    return low;
  }

  // {segment, at, text} of a line (from 0) if it is here; else null, and a "lines" event tells when it may be.
  line(number) {
    if (number === this.lines && this.partialSize) {
      const text = decoder.decode(join(this.partial)), missing = this.partialSize - this.partial.reduce((sum, each) => sum + each.length, 0);
      if (missing) this.hidden.set(number, missing);
      return { segment: this.tail, at: this.tail.lines.length, text };
    }
    const place = this.place(number, "line"), segment = this.segment(place);
    if (!segment) return null;
    const at = number - this.segments[place].line;
    return { segment, at, text: segment.lines[at] ?? "", before: this.cache.get(place - 1) };
  }

  segment(place) {
    if (place === this.segments.length - 1) return this.tail;
    const found = this.cache.get(place);
    if (found) this.keep(place, found);
    else if (this.pending.size < MAX_PENDING && !this.pending.has(place)) this.load(place);
    return found;
  }

  keep(place, segment) {
    this.cache.delete(place);
    this.cache.set(place, segment);
    if (this.cache.size > KEPT) this.cache.delete(this.cache.keys().next().value);
  }

  load(place) {
    const loading = this.read(place)
      .then((lines) => this.keep(place, { lines }), () => new Promise((later) => setTimeout(later, 1000)))
      .finally(() => {
        this.pending.delete(place);
        this.dispatchEvent(new Event("lines"));
      });
    this.pending.set(place, loading);
  }

  async read(place) {
    const { line, offset } = this.segments[place], next = this.segments[place + 1];
    if (next.offset - offset <= LONG_BYTES) return split(await this.range(offset, next.offset));
    const [head, tail] = await Promise.all([this.range(offset, offset + HEAD_BYTES), this.range(next.offset - TAIL_BYTES, next.offset)]);
    const lines = split(head), behind = tail.indexOf(LF) + 1 || tail.length;
    this.hidden.set(line + lines.length - 1, next.offset - offset - HEAD_BYTES - TAIL_BYTES + behind);
    return [...lines, ...split(tail.subarray(behind))];
  }

  // The first line (from 0) that begins at or behind an offset; null while it is not known.
  async lineAt(offset) {
    if (offset > this.have) return null;
    const place = this.place(offset, "offset"), segment = this.segments[place];
    if (place === this.segments.length - 1) {
      const at = this.tail.offsets.findIndex((each) => each >= offset);
      if (at >= 0) return segment.line + at;
      return offset <= this.have - this.partialSize ? this.lines : this.lines + 1;
    }
    const bytes = await this.range(segment.offset, offset);
    let count = bytes.length && bytes.at(-1) !== LF ? 1 : 0;
    for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) count++;
    return segment.line + count;
  }

  // Segments in pieces of about a megabyte, for who looks through everything: {line, lines}.
  async *all() {
    for (let place = 0; place < this.segments.length - 1;) {
      const first = place, { offset } = this.segments[first];
      do place++; while (place < this.segments.length - 1 && this.segments[place + 1].offset - offset <= 1 << 20);
      const isLong = this.segments[place].offset - offset > LONG_BYTES && place === first + 1;
      const lines = isLong ? await this.read(first) : split(await this.range(offset, this.segments[place].offset));
      yield { line: this.segments[first].line, lines };
    }
    const line = this.segments.at(-1).line, rest = this.partialSize ? [decoder.decode(join(this.partial))] : [];
    yield { line, lines: [...this.tail.lines, ...rest] };
  }
}

function split(bytes) {
  const lines = decoder.decode(bytes).split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function join(parts) {
  if (parts.length === 1) return parts[0];
  const whole = new Uint8Array(parts.reduce((sum, each) => sum + each.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
