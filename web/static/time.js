// Durations and ages that tick, in the words of web/render.py, by the server's clock.

const meta = document.querySelector('meta[name="now"]');
const skew = meta ? Number(meta.content) - Date.now() / 1000 : 0;
const two = (number) => String(number).padStart(2, "0");

export const now = () => Date.now() / 1000 + skew;
export const thousands = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, "\u202f");

export function duration(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(1)}s`;
  const whole = Math.round(seconds);
  return whole < 3600 ? `${Math.floor(whole / 60)}m ${two(whole % 60)}s` : `${Math.floor(whole / 3600)}h ${two(Math.floor(whole % 3600 / 60))}m`;
}

export function ago(seconds) {
  if (seconds < 5) return "now";
  const [size, unit] = seconds < 90 ? [1, "s"] : seconds < 5400 ? [60, "min"] : seconds < 129600 ? [3600, "h"] : [86400, "d"];
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

export function size(bytes) {
  let value = bytes;
  for (const unit of ["B", "KB", "MB"]) {
    if (value < 1000) return `${value < 10 && unit !== "B" ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} GB`;
}

export function tick(root = document) {
  const at = now();
  for (const time of root.querySelectorAll("time[data-since]")) write(time, duration(at - Number(time.dataset.since)).replace(/\.\ds$/, "s"));
  for (const time of root.querySelectorAll("time[data-ago]")) {
    write(time, ago(at - Number(time.dataset.ago)));
    time.title ||= new Date(Number(time.dataset.ago) * 1000).toLocaleString();
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
