// Ctrl-K: go to a page, a repo or a build by a few letters. Text nodes only; the server says what may be seen.

let dialog, input, list, asked = 0;

function row(found, at) {
  const item = document.createElement("li"), link = document.createElement("a"), kind = document.createElement("span");
  item.id = `palette-${at}`;
  item.setAttribute("role", "option");
  link.href = found.url;
  link.tabIndex = -1;
  link.textContent = found.title;
  kind.className = "quiet";
  kind.textContent = found.note || found.kind;
  item.append(link, kind);
  return item;
}

function choose(step) {
  const rows = [...list.children];
  if (!rows.length) return;
  const at = rows.findIndex((each) => each.getAttribute("aria-selected") === "true");
  const next = rows[(at + step + rows.length) % rows.length];
  for (const each of rows) each.setAttribute("aria-selected", String(each === next));
  input.setAttribute("aria-activedescendant", next.id);
  next.scrollIntoView({ block: "nearest" });
}

async function ask() {
  const turn = ++asked;
  let found = [];
  try {
    found = (await (await fetch(`/find?q=${encodeURIComponent(input.value)}`)).json()).found;
  } catch {
    found = []; // without a server there is nothing to go to; the banner says so
  }
  if (turn !== asked) return;
  list.replaceChildren(...found.map(row));
  input.removeAttribute("aria-activedescendant");
  choose(1);
}

function go() {
  const chosen = list.querySelector("[aria-selected=true] a") || list.querySelector("a");
  if (chosen) chosen.click();
}

function build() {
  dialog = document.createElement("dialog");
  dialog.className = "sheet palette";
  dialog.setAttribute("aria-label", "Go to");
  input = document.createElement("input");
  input.setAttribute("role", "combobox");
  input.setAttribute("aria-label", "A page, a repo or a build");
  input.setAttribute("aria-expanded", "true");
  input.setAttribute("aria-controls", "palette-list");
  input.autocomplete = "off";
  input.placeholder = "Go to a page, a repo or a build";
  list = document.createElement("ul");
  list.id = "palette-list";
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Found");
  input.addEventListener("input", ask);
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") choose(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter") go();
    else return;
    event.preventDefault();
  });
  dialog.append(input, list);
  document.body.append(dialog);
}

export function open() {
  if (!dialog) build();
  if (dialog.open) return dialog.close();
  input.value = "";
  dialog.showModal();
  input.focus();
  ask();
}
