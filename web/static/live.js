// "Look again": a socket says that something changed, the same page is fetched, and what differs in its
// [data-live] parts is changed in place, so that focus, selection and scroll stay where they are.

import { tick } from "./time.js";

let topics = document.body.dataset.topics;
const offline = document.getElementById("offline");
let socket, isLooking = false, again = false, retry = 0, warn = 0, later = 0;

function connect() {
  const url = new URL(`/live?topics=${encodeURIComponent(topics)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = socket = new WebSocket(url);
  socket.onmessage = () => {
    connected();
    look(); // also the first time: the page may be older than the socket
  };
  socket.onclose = () => {
    if (socket !== mine) return;
    warn ||= setTimeout(() => { offline.hidden = false; }, 3000);
    retry = Math.min(Math.max(200, retry * 1.7), 5000);
    later = setTimeout(connect, retry * (0.7 + Math.random() * 0.6));
  };
}

// A build that has ended hears less than one that waits for a runner.
function listenTo(fresh) {
  topics = document.body.dataset.topics = fresh;
  clearTimeout(later);
  socket.close();
  connect();
}

function connected() {
  clearTimeout(warn);
  warn = retry = 0;
  offline.hidden = true;
}

export async function look() {
  if (isLooking) { again = true; return; }
  isLooking = true;
  try {
    do {
      again = false;
      const began = performance.now(), page = await fetchPage();
      if (page) replace(page);
      // A busy server is asked less often: most of the time is the reader's.
      await new Promise((done) => setTimeout(done, Math.max(100, 3 * (performance.now() - began))));
    } while (again);
  } finally {
    isLooking = false;
  }
}

// XMLHttpRequest parses HTML into an inert document without a string that could be executed.
function fetchPage() {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.pathname + location.search);
    request.responseType = "document";
    request.setRequestHeader("X-Shipway-Live", "1");
    request.onload = () => resolve(request.status === 200 && new URL(request.responseURL).pathname === location.pathname ? request.response : null);
    request.onerror = () => resolve(null);
    request.send();
  });
}

function replace(page) {
  for (const part of page.querySelectorAll("[data-live]")) {
    const here = document.getElementById(part.id);
    if (here) morph(here, part);
  }
  if (page.title !== document.title) document.title = page.title;
  const icon = document.getElementById("favicon"), fresh = page.getElementById("favicon");
  if (icon && fresh && icon.getAttribute("href") !== fresh.getAttribute("href")) icon.href = fresh.href;
  if (page.body.dataset.topics !== topics) listenTo(page.body.dataset.topics);
  tick();
  document.dispatchEvent(new CustomEvent("shipway:changed"));
}

// Make `here` like `wanted`. Children with ids are found again wherever they went; others by their place.
export function morph(here, wanted) {
  attributes(here, wanted);
  let at = here.firstChild;
  for (const child of [...wanted.childNodes]) {
    const known = child.id ? find(here, child.id) : null;
    if (known) {
      if (known !== at) here.insertBefore(known, at);
      else at = at.nextSibling;
      morph(known, child);
    } else if (at && !at.id && at.nodeType === child.nodeType && at.nodeName === child.nodeName && !child.id) {
      const next = at.nextSibling;
      if (at.nodeType === Node.ELEMENT_NODE) morph(at, child);
      else if (at.nodeValue !== child.nodeValue) at.nodeValue = child.nodeValue;
      at = next;
    } else here.insertBefore(document.importNode(child, true), at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

const find = (parent, id) => [...parent.children].find((child) => child.id === id);

function attributes(here, wanted) {
  for (const { name } of [...here.attributes]) if (!wanted.hasAttribute(name) && name !== "open" && !(name === "title" && here.localName === "time")) here.removeAttribute(name);
  for (const { name, value } of wanted.attributes) if (here.getAttribute(name) !== value && !(name === "open" && here.localName === "details")) here.setAttribute(name, value);
}

if (topics) {
  connect();
  // What a hidden page missed in a sleeping machine, it looks for when it is seen again.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setInterval(() => { if (!document.hidden) look(); }, 60_000);
}
