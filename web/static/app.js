// What every page has: ticking times, live parts, keys, copy buttons. Nothing here is needed to read or to act.

import { tick } from "./time.js";
import { look } from "./live.js";

const KEYS = [
  ["?", "these keys"],
  ["j / k", "next and previous row or step"],
  ["Enter", "open it"],
  ["/", "find in the log, or filter builds"],
  ["n / N", "next and previous find"],
  ["f", "follow the log's end"],
  ["g / G", "start and end of the log"],
  ["z", "fold or unfold all commands"],
  [".", "the raw log"],
  ["r", "rerun the build"],
  ["c", "cancel the build"],
  ["a", "approve the build"],
  ["g h / g r / g q / g u", "go to builds, repos, queue, runners"],
  ["Ctrl K", "go to any page, repo or build"],
];

document.cookie = `shipway_scripts=1; path=/; max-age=31536000; samesite=lax${location.protocol === "https:" ? "; secure" : ""}`;
tick();
setInterval(tick, 1000);

if (document.querySelector("log-view")) import("./log-view.js");

// --- copy -------------------------------------------------------------------------------------------

function offerCopies() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("[data-copy][hidden]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}
offerCopies();
document.addEventListener("shipway:changed", offerCopies);

// --- actions: the buttons are real forms; with scripts they say at once that they were heard -------------

document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button || !event.target.dataset.action) return;
  button.setAttribute("aria-busy", "true");
  button.firstChild.textContent = { cancel: "Cancelling… ", approve: "Approving… " }[event.target.dataset.action] ?? "Starting… ";
});

// --- keys -------------------------------------------------------------------------------------------

function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")].filter((row) => row.offsetParent);
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement), current = rows.findIndex((row) => row.getAttribute("aria-current") === "true");
  const from = at >= 0 ? at : current >= 0 ? current : step > 0 ? -1 : rows.length;
  rows[Math.min(rows.length - 1, Math.max(0, from + step))].focus();
}

// A key is pressed by mistake more easily than a button: these ask.
const QUESTIONS = { cancel: "Cancel this build?", approve: "Approve this build? It runs what its author wrote." };

function press(action) {
  const button = document.querySelector(`form[data-action="${action}"] button:not([disabled])`);
  if (!button || (QUESTIONS[action] && !confirm(QUESTIONS[action]))) return;
  button.form.requestSubmit(button);
}

let sheet;
function help() {
  if (!sheet) {
    sheet = document.createElement("dialog");
    sheet.className = "sheet";
    sheet.setAttribute("aria-label", "Keys");
    const title = document.createElement("h1"), list = document.createElement("dl"), close = document.createElement("button");
    title.textContent = "Keys";
    for (const [keys, words] of KEYS) {
      const key = document.createElement("dt"), meaning = document.createElement("dd");
      for (const name of keys.split(" / ")) {
        const cap = document.createElement("kbd");
        cap.textContent = name;
        key.append(cap, " ");
      }
      meaning.textContent = words;
      list.append(key, meaning);
    }
    close.textContent = "Close";
    close.addEventListener("click", () => sheet.close());
    sheet.append(title, list, close);
    document.body.append(sheet);
  }
  if (sheet.open) sheet.close(); else sheet.showModal();
}

const ACTIONS = {
  "?": help,
  j: () => move(1),
  k: () => move(-1),
  r: () => press("rerun"),
  c: () => press("cancel"),
  a: () => press("approve"),
  "/": () => document.querySelector("[data-find-page]")?.focus(),
  ".": () => document.querySelector("[data-raw]")?.click(),
};

const PLACES = { h: "/", r: "/repos", q: "/queue", u: "/runners" };
let afterG = -Infinity;

document.addEventListener("keydown", async (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    (await import("./palette.js")).open();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest?.("input, textarea, select")) return;
  if (document.querySelector("dialog.palette[open]")) return;
  if (PLACES[event.key] && event.timeStamp - afterG < 1500) {
    event.preventDefault();
    location.href = PLACES[event.key];
    return;
  }
  afterG = event.key === "g" ? event.timeStamp : -Infinity;
  const action = ACTIONS[event.key];
  if (!action || (sheet?.open && action !== help)) return;
  event.preventDefault();
  action();
});

export { look };
